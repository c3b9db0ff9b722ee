"""Every way in which a call can fail, one class per code.

Each error says whether the request happened (`outcome`) and whether the same
request may succeed later without anyone acting (`retryable`). The codes are
those of docs/PROTOCOL.md, and four of the client's own: `not_connected`,
`connection_lost`, `client_timeout` and `bad_reply`. Wrong arguments are no
`DatastoreError`: they raise `TypeError` or `ValueError` before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

__all__ = [
    "DatastoreError",
    "ParseError",
    "LineTooLong",
    "UnknownOp",
    "BadRequest",
    "UnsupportedProtocol",
    "UnsupportedInMode",
    "IndexDisabled",
    "VersionMismatch",
    "AlreadyExists",
    "KeyTooLarge",
    "ValueTooLarge",
    "BatchTooLarge",
    "DimensionMismatch",
    "BadVector",
    "NotLeader",
    "NoLeader",
    "NoQuorum",
    "TooStale",
    "IndexNotReady",
    "Starting",
    "ClockSkew",
    "Overloaded",
    "TooManyConnections",
    "DiskFull",
    "ReadOnly",
    "OutOfMemory",
    "SyncFailed",
    "Timeout",
    "LeadershipLost",
    "ReplicationTimeout",
    "Internal",
    "NotConnected",
    "ConnectionLost",
    "ClientTimeout",
    "BadReply",
]

NOT_APPLIED = "not_applied"
APPLIED = "applied"
UNKNOWN = "unknown"


class DatastoreError(Exception):
    """A call that failed; a code of a newer node comes as this class itself."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """`fields` is the `error` object of a reply."""
        # The only argument, so that pickling the error and reading it back works.
        super().__init__(dict(fields))
        self.fields: dict[str, Any] = dict(fields)
        """The error as it came, with what its code adds."""
        self.code: str = str(fields.get("code", ""))
        """What kind of failure, e.g. `version_mismatch`."""
        self.message: str = str(fields.get("message", ""))
        """What was wrong, for a person; its wording may change."""
        self.retryable: bool = fields.get("retryable") is True
        """Whether the same request may succeed later without anyone acting."""
        # An outcome that this version doesn't know says nothing certain.
        known = fields.get("outcome") in (NOT_APPLIED, APPLIED)
        self.outcome: str = str(fields["outcome"]) if known else UNKNOWN
        """`not_applied` (and never will be), `applied`, or `unknown` (read to find out)."""

    def __str__(self) -> str:
        return f"{self.code}: {self.message} (outcome: {self.outcome})"


class ParseError(DatastoreError):
    """Not UTF-8, not JSON, or a lone surrogate."""


class LineTooLong(DatastoreError):
    """The request is longer than the node's `--max-line-bytes`."""


class UnknownOp(DatastoreError):
    """The node has no such operation."""


class BadRequest(DatastoreError):
    """A field is missing, unknown or out of its bounds; the message names it."""


class UnsupportedProtocol(DatastoreError):
    """The node doesn't speak the protocol that `hello` asked for."""


class UnsupportedInMode(DatastoreError):
    """Needs a cluster, or another mode."""


class IndexDisabled(DatastoreError):
    """The node was started without the index that this needs."""


class _Conditional(DatastoreError):
    @property
    def current(self) -> Optional[str]:
        """The key's version; None when there is no such key."""
        current = self.fields.get("current")
        return current if isinstance(current, str) else None


class VersionMismatch(_Conditional):
    """The key doesn't have the version of `if_version`."""


class AlreadyExists(_Conditional):
    """`if_absent`, and the key exists."""


class KeyTooLarge(DatastoreError):
    """A key of more than 4 KiB."""


class ValueTooLarge(DatastoreError):
    """A value of more than 8 MiB."""


class BatchTooLarge(DatastoreError):
    """Too many records or keys, or a reply that would be too large."""


class DimensionMismatch(DatastoreError):
    """There are vectors, but none of the length that was searched for."""

    @property
    def lengths(self) -> list[int]:
        """The lengths of the vectors that there are under the prefix, ascending."""
        lengths = self.fields.get("lengths")
        return [n for n in lengths if isinstance(n, int)] if isinstance(lengths, list) else []


class BadVector(DatastoreError):
    """Not 1 to 4,096 finite numbers, or all of them zero."""


class NotLeader(DatastoreError):
    """Another node leads."""

    @property
    def leader(self) -> Optional[dict[str, Any]]:
        """`{"node_id": …, "host": …, "port": …}`; None when the node doesn't know."""
        leader = self.fields.get("leader")
        return leader if isinstance(leader, dict) else None


class NoLeader(DatastoreError):
    """An election is running."""


class NoQuorum(DatastoreError):
    """No majority of the nodes is in contact."""


class TooStale(DatastoreError):
    """A replica that can't meet `max_staleness_ms`."""


class IndexNotReady(DatastoreError):
    """The index is being rebuilt after a start."""

    @property
    def progress(self) -> float:
        """The part of the index that is built, 0 to 1."""
        progress = self.fields.get("progress")
        return float(progress) if isinstance(progress, (int, float)) else 0.0

    @property
    def expected_ms(self) -> Optional[int]:
        """About how long the rest will take, in milliseconds; None until that can be told."""
        expected = self.fields.get("expected_ms")
        return expected if isinstance(expected, int) else None


class Starting(DatastoreError):
    """The node is recovering, or stopping."""


class ClockSkew(DatastoreError):
    """The node's clock is too far from the others'."""


class Overloaded(DatastoreError):
    """The node has as much work as it may hold."""

    @property
    def retry_after_ms(self) -> int:
        """When to try again, in milliseconds."""
        retry_after_ms = self.fields.get("retry_after_ms")
        return retry_after_ms if isinstance(retry_after_ms, int) else 0


class TooManyConnections(DatastoreError):
    """The node has as many connections as it may hold, and closed this one."""


class DiskFull(DatastoreError):
    """The disk's reserve is reached; reads and deletes go on."""


class ReadOnly(DatastoreError):
    """The node takes no writes."""


class OutOfMemory(DatastoreError):
    """The node's `--max-memory` is reached; reads and deletes go on. Of a delete of a key that is
    not there, in dynamo mode: the share of such deletes is full."""

    @property
    def held_by(self) -> list[int]:
        """The members that hold back what deletes of absent keys have left."""
        held_by = self.fields.get("held_by")
        return [n for n in held_by if isinstance(n, int)] if isinstance(held_by, list) else []


class SyncFailed(DatastoreError):
    """The disk refused to sync the write."""


class Timeout(DatastoreError):
    """The node had no answer within its `--request-timeout-ms`."""


class LeadershipLost(DatastoreError):
    """The leader lost its office while the write was under way."""


class ReplicationTimeout(DatastoreError):
    """Durable, but not on as many nodes as asked for."""

    @property
    def acknowledged(self) -> int:
        """On how many nodes it is durable."""
        acknowledged = self.fields.get("acknowledged")
        return acknowledged if isinstance(acknowledged, int) else 0


class Internal(DatastoreError):
    """A fault of the node: its log says more."""


class NotConnected(DatastoreError):
    """The client's own: no connection could be made, or nothing was sent."""


class ConnectionLost(DatastoreError):
    """The client's own: the connection ended before the reply; a write is `unknown`."""


class ClientTimeout(DatastoreError):
    """The client's own: no reply within its `timeout`; a write is `unknown`."""


class BadReply(DatastoreError):
    """The client's own: what came is no reply of this protocol; a write is `unknown`."""


ERRORS: dict[str, type[DatastoreError]] = {
    "parse_error": ParseError,
    "line_too_long": LineTooLong,
    "unknown_op": UnknownOp,
    "bad_request": BadRequest,
    "unsupported_protocol": UnsupportedProtocol,
    "unsupported_in_mode": UnsupportedInMode,
    "index_disabled": IndexDisabled,
    "version_mismatch": VersionMismatch,
    "already_exists": AlreadyExists,
    "key_too_large": KeyTooLarge,
    "value_too_large": ValueTooLarge,
    "batch_too_large": BatchTooLarge,
    "dimension_mismatch": DimensionMismatch,
    "bad_vector": BadVector,
    "not_leader": NotLeader,
    "no_leader": NoLeader,
    "no_quorum": NoQuorum,
    "too_stale": TooStale,
    "index_not_ready": IndexNotReady,
    "starting": Starting,
    "clock_skew": ClockSkew,
    "overloaded": Overloaded,
    "too_many_connections": TooManyConnections,
    "disk_full": DiskFull,
    "read_only": ReadOnly,
    "out_of_memory": OutOfMemory,
    "sync_failed": SyncFailed,
    "timeout": Timeout,
    "leadership_lost": LeadershipLost,
    "replication_timeout": ReplicationTimeout,
    "internal": Internal,
    "not_connected": NotConnected,
    "connection_lost": ConnectionLost,
    "client_timeout": ClientTimeout,
    "bad_reply": BadReply,
}
"""The class of each code."""


def error_of(fields: Mapping[str, Any]) -> DatastoreError:
    """The error that an `error` object stands for."""
    return ERRORS.get(str(fields.get("code")), DatastoreError)(fields)
