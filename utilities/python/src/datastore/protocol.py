"""Lines: a request to its line, bytes to lines, a line to its reply. No sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

REPLY_BYTES_MAX = 64 * 1024 * 1024
"""More than the longest reply (a `bulk_get` of 32 MiB of values and their keys)."""

READS = frozenset(
    {
        "ping",
        "hello",
        "get",
        "bulk_get",
        "search_by_value",
        "search_text",
        "get_vector",
        "vector_search",
        "scan",
        "count",
        "stats",
        "cluster",
        "conflicts",
    }
)
"""Operations that change nothing, so that sending one twice does no harm. Any other is a write."""

ABOUT_THE_NODE = frozenset({"ping", "hello", "stats", "cluster", "snapshot", "promote", "conflicts"})
"""Operations about the node that is asked, whoever leads, unless they name another one."""


def encode_request(op: str, fields: Mapping[str, Any]) -> bytes:
    """The request's line with its newline; `TypeError` or `ValueError` for what JSON can't carry."""
    if not isinstance(op, str):
        raise TypeError(f"an operation's name is a str, not {type(op).__name__}")
    try:
        text = json.dumps({"op": op, **fields}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError as error:
        lone = error.object[error.start]
        raise ValueError(
            f"`{op}`: a string has the lone surrogate {lone!a}, which stands for no character"
        ) from None
    except TypeError as error:
        raise TypeError(f"`{op}`: {error}") from None
    except ValueError as error:
        raise ValueError(f"`{op}`: {error}") from None
    except RecursionError:
        raise ValueError(f"`{op}`: an argument is nested too deeply") from None


class LineBuffer:
    """Cuts what a connection brings into lines."""

    def __init__(self, line_bytes_max: int = REPLY_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._buffer = bytearray()
        # Where the search for a newline goes on: a long line isn't searched from its start again.
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now; `ValueError` when one is longer than any reply."""
        self._buffer += data
        lines = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            lines.append(bytes(self._buffer[start:end]))
            start = end + 1
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if self._searched > self._line_bytes_max:
            raise ValueError(f"a line of more than {self._line_bytes_max} bytes")
        return lines


class Reply:
    """A JSON object from the node, whose fields are given with their types checked.

    Each method raises `ValueError` when the field is not there or is something else.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: Any) -> None:
        if not isinstance(fields, dict):
            raise ValueError(f"not an object: {shown(fields)}")
        self.fields: dict[str, Any] = fields

    @classmethod
    def parse(cls, line: bytes) -> Reply:
        """A reply's line."""
        reply = cls(json.loads(line.decode("utf-8")))
        if not reply.flag("ok"):
            error = cls(reply.value("error"))
            # An error without these says nothing that could be relied on.
            error.text("code"), error.text("message"), error.text("outcome"), error.flag("retryable")
        return reply

    def value(self, name: str) -> Any:
        """Any JSON."""
        try:
            return self.fields[name]
        except KeyError:
            raise ValueError(f"no `{name}` in {shown(self.fields)}") from None

    def text(self, name: str) -> str:
        """A string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong(name)
        return value

    def optional_text(self, name: str) -> Optional[str]:
        """A string, or null."""
        return None if self.value(name) is None else self.text(name)

    def integer(self, name: str) -> int:
        """An integer."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong(name)
        return value

    def number(self, name: str) -> float:
        """A number."""
        return _number(self.value(name))

    def items(self, name: str) -> list[Any]:
        """An array."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self._wrong(name)
        return value

    def numbers(self, name: str) -> list[float]:
        """An array of numbers."""
        return [_number(item) for item in self.items(name)]

    def texts(self, name: str) -> list[str]:
        """An array of strings."""
        texts = self.items(name)
        if not all(isinstance(text, str) for text in texts):
            raise self._wrong(name)
        return texts

    def objects(self, name: str) -> list[Reply]:
        """An array of objects."""
        return [Reply(item) for item in self.items(name)]

    def _wrong(self, name: str) -> ValueError:
        return ValueError(f"`{name}` is {shown(self.fields[name])}")


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"not a number: {shown(value)}")
    return float(value)


def shown(value: object) -> str:
    """For a message: not longer than a line."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"
