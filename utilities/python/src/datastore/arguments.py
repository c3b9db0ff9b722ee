"""Checks of arguments that would otherwise become something else on their way into JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, SupportsFloat, Union

from .protocol import shown


class NotGiven(Enum):
    """Tells an argument that was left out from one that is None."""

    NOT_GIVEN = "not given"


NOT_GIVEN = NotGiven.NOT_GIVEN

Records = Union[Mapping[str, Any], Iterable[tuple[str, Any]]]
"""Keys and their values: a mapping, or pairs."""

Consistency = Union[str, Mapping[str, int]]
"""`"linearizable"`, `"local"`, or `{"max_staleness_ms": n}`."""

Copies = Union[int, str]
"""How many members must have it: a number, `"majority"` or `"all"`."""


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def condition(if_version: Union[str, None, NotGiven]) -> dict[str, Any]:
    """`if_version` as a field, where None means something."""
    return {} if if_version is NOT_GIVEN else {"if_version": if_version}


def text(name: str, value: object) -> str:
    """A str, since JSON would make strings of other keys."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` is a str, not {shown(value)}")
    return value


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Several; not one str, which is an iterable of its characters."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"`{name}` is an iterable of str, not {shown(values)}")
    return [text(f"{name}[{index}]", value) for index, value in enumerate(values)]


def records(pairs: Records) -> list[tuple[str, Any]]:
    """The pairs of a bulk."""
    checked = []
    for index, pair in enumerate(pairs.items() if isinstance(pairs, Mapping) else pairs):
        # A str of two characters would unpack into a key and a value.
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"`records`[{index}] is a (key, value) pair, not {shown(pair)}")
        checked.append((text(f"records[{index}][0]", pair[0]), pair[1]))
    return checked


def vector(numbers: Iterable[SupportsFloat]) -> list[float]:
    """Numbers, those of numeric libraries too."""
    if isinstance(numbers, (str, bytes)):
        raise TypeError(f"`vector` is an iterable of numbers, not {shown(numbers)}")
    return [_number(index, number) for index, number in enumerate(numbers)]


def _number(index: int, number: SupportsFloat) -> float:
    if isinstance(number, bool) or not isinstance(number, SupportsFloat):
        raise TypeError(f"`vector`[{index}] is a number, not {shown(number)}")
    return number if isinstance(number, int) else float(number)
