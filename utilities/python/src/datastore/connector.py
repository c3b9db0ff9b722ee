"""The blocking client."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar

from .address import address_of, check_seconds
from .binding import Blocking
from .connection import Connection
from .delivery import Interruption, may_send_again, settle, unanswered
from .operations import PagedOperations
from .pipeline import Pipeline
from .request import Handle, Request

T = TypeVar("T")


class DatastoreConnector(PagedOperations, Blocking):
    """A client of one node, over one connection.

    It connects at the first call (`ping()` tells whether someone is there) and
    again at the next call after the connection was lost. Threads may share it:
    their calls take turns. A read whose connection is lost is sent once more
    over a new one, a write only if not a byte of it had been handed to the socket.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9000,
        *,
        timeout: float = 15.0,
        connect_timeout: float = 5.0,
    ) -> None:
        """`timeout`: seconds that a reply may take, in a pipeline each from the one before it.

        `connect_timeout`: seconds that connecting may take. After a timeout the
        connection is closed, since the reply may still come.
        """
        self._address = address_of(host, port)
        self._timeout = check_seconds("timeout", timeout)
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._connection: Optional[Connection] = None
        # Held from a request's first byte to its reply's last: replies carry no other sign of whose they are.
        self._lock = threading.Lock()

    def pipeline(self) -> Pipeline:
        """Gathers calls to send them together: `with client.pipeline() as pipeline: …`."""
        return Pipeline(self._send)

    def close(self) -> None:
        """Closes the connection; a later call opens another one."""
        with self._lock:
            self._disconnect()

    def __enter__(self) -> DatastoreConnector:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DatastoreConnector({self._address.host!r}, {self._address.port})"

    def _perform(self, request: Request[T]) -> T:
        handle = Handle(request)
        self._send([handle])
        return handle.result()

    def _send(self, handles: Sequence[Handle[Any]]) -> None:
        """Every handle has its result or its error afterwards."""
        with self._lock:
            try:
                self._attempt(handles)
            except Interruption as interruption:
                if may_send_again(handles, interruption):
                    self._attempt_again(unanswered(handles))
                else:
                    settle(handles, interruption)

    def _attempt_again(self, handles: Sequence[Handle[Any]]) -> None:
        try:
            self._attempt(handles)
        except Interruption as interruption:
            settle(handles, interruption)

    def _attempt(self, handles: Sequence[Handle[Any]]) -> None:
        if not handles:
            return
        connection = self._connected()
        try:
            connection.exchange(handles, self._timeout)
        except BaseException:
            # An interrupt of the program's leaves replies behind, too.
            self._disconnect()
            raise

    def _connected(self) -> Connection:
        """The one place where a connection is chosen."""
        if self._connection is not None and self._connection.has_ended():
            self._disconnect()
        if self._connection is None:
            self._connection = Connection(self._address, self._connect_timeout)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
