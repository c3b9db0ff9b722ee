"""A request that is ready to be sent, and the handle that waits for its reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Generic, Optional, TypeVar, cast

from .errors import DatastoreError, error_of
from .protocol import ABOUT_THE_NODE, READS, Reply, encode_request

T = TypeVar("T")


class Request(Generic[T]):
    """One operation with its arguments. Made only of arguments that JSON can carry."""

    __slots__ = ("op", "is_read", "is_near", "line", "read")

    def __init__(self, op: str, fields: Mapping[str, Any], read: Callable[[Reply], T]) -> None:
        """`read` makes the result of a reply that is `ok`; `ValueError` when it can't."""
        self.op = op
        self.is_read = op in READS
        # Whether it is about what one node has, and not for whoever leads.
        is_local = fields.get("consistency", "linearizable") != "linearizable"
        self.is_near = is_local or (op in ABOUT_THE_NODE and "node_id" not in fields)
        self.line = encode_request(op, fields)
        self.read = read


class Handle(Generic[T]):
    """A call of a pipeline: its result or its error, once the pipeline was sent."""

    __slots__ = ("_request", "_begun", "_done", "_result", "_error")

    def __init__(self, request: Request[T]) -> None:
        self._request = request
        # Whether a byte of it may have reached the node.
        self._begun = False
        self._done = False
        self._result: Optional[T] = None
        self._error: Optional[DatastoreError] = None

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._done

    def result(self) -> T:
        """The result; raises the call's own error. `RuntimeError` before the pipeline was sent."""
        if not self._done:
            raise RuntimeError(f"`{self._request.op}` has no result: its pipeline was not sent")
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    def exception(self) -> Optional[DatastoreError]:
        """The call's error, None when it succeeded. `RuntimeError` before the pipeline was sent."""
        if not self._done:
            raise RuntimeError(f"`{self._request.op}` has no result: its pipeline was not sent")
        return self._error

    def _take(self, line: bytes) -> None:
        """Reads the reply; `ValueError` when it is none, and the handle is not done then."""
        reply = Reply.parse(line)
        if reply.flag("ok"):
            self._result = self._request.read(reply)
        else:
            self._error = error_of(reply.value("error"))
        self._done = True

    def _reset(self) -> None:
        """As if it had not been sent: it is to be sent again."""
        self._begun = self._done = False
        self._result = self._error = None

    def _fail(self, error: DatastoreError) -> None:
        self._error = error
        self._done = True
