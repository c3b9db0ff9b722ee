"""What becomes of requests when their connection ends: one policy for every client.

A transport gives each reply to its handle, in order, and raises `Interruption`
when it can't go on. Handles that are not done then are sent again or fail here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .errors import NOT_APPLIED, UNKNOWN, error_of
from .protocol import shown
from .request import Handle, Request

CHUNK_BYTES = 64 * 1024
"""Lines are handed to the socket in pieces of about this size."""


class Interruption(Exception):
    """A connection that could not be made, or that can't be used any more."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def error_fields(self, handle: Handle[Any]) -> dict[str, Any]:
        """What is to be told to a call that got no reply."""
        op, is_read = handle._request.op, handle._request.is_read
        if not handle._begun or self.code == "not_connected":
            message = f"{self.message}; `{op}` was not sent"
            return _fields("not_connected", message, True, NOT_APPLIED)
        retryable = is_read and self.code != "bad_reply"
        message = f"{self.message}, waiting for the reply to `{op}`"
        return _fields(self.code, message, retryable, NOT_APPLIED if is_read else UNKNOWN)


class TurnedAway(Interruption):
    """The node had too many connections: it read nothing from this one."""

    def error_fields(self, handle: Handle[Any]) -> dict[str, Any]:
        return _fields(self.code, self.message, True, NOT_APPLIED)


def _fields(code: str, message: str, retryable: bool, outcome: str) -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable, "outcome": outcome}


def take_reply(handle: Handle[Any], line: bytes, address: str) -> None:
    """Gives a line to the handle whose turn it is."""
    try:
        handle._take(line)
    except (ValueError, RecursionError) as error:
        message = f"{address} sent what is no reply ({error}): {shown(line)}"
        raise Interruption("bad_reply", message) from None
    failure = handle.exception()
    if failure is not None and failure.code == "too_many_connections":
        raise TurnedAway(failure.code, failure.message)


class Opening:
    """The answer to what a connection begins with: a node that has too many says so in its place."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._reply = Handle(Request("ping", {}, lambda reply: None))

    def take(self, line: bytes) -> None:
        """`Interruption` when nothing more will be answered."""
        take_reply(self._reply, line, self._address)


def chunks(handles: Sequence[Handle[Any]]) -> Iterator[list[Handle[Any]]]:
    """The handles in groups whose lines together make about `CHUNK_BYTES`."""
    chunk: list[Handle[Any]] = []
    chunk_bytes = 0
    for handle in handles:
        chunk.append(handle)
        chunk_bytes += len(handle._request.line)
        if chunk_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, chunk_bytes = [], 0
    if chunk:
        yield chunk


def unanswered(handles: Sequence[Handle[Any]]) -> list[Handle[Any]]:
    """Those that have neither result nor error."""
    return [handle for handle in handles if not handle.done()]


def may_send_again(handles: Sequence[Handle[Any]], interruption: Interruption) -> bool:
    """Whether the unanswered ones can go over a new connection without any write happening twice.

    Only as a whole: a write that went ahead of one with an unknown outcome
    could be overtaken by it, and the older value would stay.
    """
    if interruption.code != "connection_lost":
        return False
    return all(handle._request.is_read or not handle._begun for handle in unanswered(handles))


def settle(handles: Sequence[Handle[Any]], interruption: Interruption) -> None:
    """Gives its error to each unanswered handle."""
    for handle in unanswered(handles):
        handle._fail(error_of(interruption.error_fields(handle)))
