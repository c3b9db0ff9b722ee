"""The asyncio client: the same operations, each a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar

from .address import address_of, check_seconds
from .aio_connection import AsyncConnection
from .binding import Awaiting
from .delivery import Interruption, may_send_again, settle, unanswered
from .operations import PagedOperations
from .pipeline import AsyncPipeline
from .request import Handle, Request

T = TypeVar("T")


class AsyncDatastoreConnector(PagedOperations, Awaiting):
    """A client of one node, over one connection, for the tasks of one event loop.

    Calls of several tasks share the connection without waiting for each other:
    each is written at once, and the replies come in that order. A call that is
    cancelled may have been carried out. Connecting, reconnecting and sending
    again are as in `DatastoreConnector`; whatever was given to the event loop
    counts as handed to the socket.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9000,
        *,
        timeout: float = 15.0,
        connect_timeout: float = 5.0,
    ) -> None:
        """`timeout`: seconds that a reply may take, each from the one before it on the connection.

        `connect_timeout`: seconds that connecting may take. After a timeout the
        connection is closed, and every call on it ends.
        """
        self._address = address_of(host, port)
        self._timeout = check_seconds("timeout", timeout)
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._connection: Optional[AsyncConnection] = None
        self._opening: Optional[asyncio.Task[AsyncConnection]] = None

    def pipeline(self) -> AsyncPipeline:
        """Gathers calls to send them together: `async with client.pipeline() as pipeline: …`."""
        return AsyncPipeline(self._send)

    async def close(self) -> None:
        """Closes the connection, whose calls end; a later call opens another one."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> AsyncDatastoreConnector:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncDatastoreConnector({self._address.host!r}, {self._address.port})"

    async def _perform(self, request: Request[T]) -> T:
        handle = Handle(request)
        await self._send([handle])
        return handle.result()

    async def _send(self, handles: Sequence[Handle[Any]]) -> None:
        """Every handle has its result or its error afterwards."""
        try:
            await self._attempt(handles)
        except Interruption as interruption:
            if may_send_again(handles, interruption):
                await self._attempt_again(unanswered(handles))
            else:
                settle(handles, interruption)

    async def _attempt_again(self, handles: Sequence[Handle[Any]]) -> None:
        try:
            await self._attempt(handles)
        except Interruption as interruption:
            settle(handles, interruption)

    async def _attempt(self, handles: Sequence[Handle[Any]]) -> None:
        if handles:
            connection = await self._connected()
            await connection.exchange(handles)

    async def _connected(self) -> AsyncConnection:
        """The one place where a connection is chosen."""
        while self._connection is None or self._connection.has_ended():
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
                # Its failure is nobody's news when every call that waits is cancelled.
                self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            # One call may be cancelled while others wait for the same connection.
            await asyncio.shield(self._opening)
        return self._connection

    async def _open(self) -> AsyncConnection:
        previous, self._connection = self._connection, None
        try:
            if previous is not None:
                await previous.close()
            self._connection = await AsyncConnection.open(self._address, self._timeout, self._connect_timeout)
            return self._connection
        finally:
            self._opening = None
