"""What the operations give back, where it is more than a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Optional, TypedDict, TypeVar

Item = TypeVar("Item")


class Entry(NamedTuple):
    """A key and its value."""

    key: str
    found: bool
    """Whether the key has a value: one that is null is found, too."""
    value: Any
    version: Optional[str]
    """Opaque, to be compared for equality only; None when there is no such key."""


class VectorEntry(NamedTuple):
    """A key and its vector."""

    key: str
    found: bool
    vector: Optional[list[float]]
    version: Optional[str]


class ScanItem(NamedTuple):
    """A key that a scan came by."""

    key: str
    value: Any
    """None when the scan left values out, and when the key has only a vector."""
    version: str
    vector: Optional[list[float]]
    """None unless the scan asked for vectors and the key has one."""


@dataclass(frozen=True)
class BulkWritten:
    """What a `bulk_set` did."""

    count: int
    """How many records were sent."""
    version: Optional[str]
    """The version that all its keys have now; None when there were no records."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a search or a scan."""

    items: list[Item]
    next: Optional[str]
    """What to give as `after` for the next page; None behind the last item."""
    total: Optional[int] = None
    """How many there are in all pages; None for a scan."""
    total_any: Optional[int] = None
    """How many keys have any of the words, where none has all of them; None otherwise (`search_text`)."""


class Hello(TypedDict):
    """What a client should know of the node."""

    protocol: int
    server: str
    node_id: int
    role: str
    mode: str
    leader: Optional[dict[str, Any]]
    limits: dict[str, int]
    features: list[str]
    text_revision: int
    """Of the rule that cuts texts into words. Nodes whose rule is the first, 1, don't say it."""


class Cluster(TypedDict):
    """The members and who leads."""

    mode: str
    node_id: int
    role: str
    term: int
    leader: Optional[dict[str, Any]]
    members: list[dict[str, Any]]
    commit_index: int
    applied_index: int
    tolerates: int


class Snapshot(TypedDict):
    """A snapshot that was made."""

    index: int
    bytes: int
    took_ms: int
