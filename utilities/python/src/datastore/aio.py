"""The asyncio client: the same operations, each a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

from .address import Address, addresses_of, check_seconds
from .aio_connection import AsyncConnection
from .binding import Awaiting
from .delivery import Interruption
from .operations import PagedOperations
from .pipeline import AsyncPipeline
from .request import Handle, Request
from .search import Nodes, Search
from .silence import PING_AGAIN_SECONDS, answers, has_fallen_silent

T = TypeVar("T")


class AsyncDatastoreConnector(PagedOperations, Awaiting):
    """A client of a node or a cluster, for the tasks of one event loop.

    Calls of several tasks share the connection without waiting for each other:
    each is written at once, and the replies come in that order. A call that is
    cancelled may have been carried out. Connecting, reconnecting, sending again
    and finding the leader are as in `DatastoreConnector`; whatever was given to
    the event loop counts as handed to the socket. Order between calls that are
    under way at the same time is not promised across a change of leader.
    """

    def __init__(
        self,
        host: Union[str, Iterable[str]] = "127.0.0.1",
        port: int = 9000,
        *,
        timeout: float = 15.0,
        connect_timeout: float = 5.0,
        patience: float = 10.0,
        silence: float = 1.0,
    ) -> None:
        """`host`: one or several, each a host or `"host:port"`.

        `timeout`: seconds that a call may take, whatever it waits for; in a pipeline each
        reply, from the one before it on the connection.

        `connect_timeout`: seconds that connecting may take. After a timeout the
        connection is closed, and every call on it ends.

        `patience`: seconds to look for a leader, from the first answer that names
        none or another one. With 0 such an answer is raised as it comes.

        `silence`: seconds for which a node may bring nothing, where others can be asked. One
        that doesn't answer a ping on a connection of its own either is left until it does.
        """
        self._nodes = Nodes(addresses_of(host, port), patience)
        self._timeout = check_seconds("timeout", timeout)
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._silence = check_seconds("silence", silence)
        self._pinging: dict[Address, asyncio.Task[None]] = {}
        self._connections: dict[Address, AsyncConnection] = {}
        self._opening: dict[Address, asyncio.Task[AsyncConnection]] = {}

    def pipeline(self) -> AsyncPipeline:
        """Gathers calls to send them together: `async with client.pipeline() as pipeline: …`."""
        return AsyncPipeline(self._send)

    async def close(self) -> None:
        """Closes the connections, whose calls end; a later call opens another one."""
        pinging = list(self._pinging.values())
        for task in pinging:
            task.cancel()
        await asyncio.gather(*pinging, return_exceptions=True)
        for node in self._pinging:
            self._nodes.silent.answers_again(node)
        self._pinging.clear()
        if self._opening:
            await asyncio.wait(list(self._opening.values()))
        connections, self._connections = self._connections, {}
        for connection in connections.values():
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
        return f"AsyncDatastoreConnector({self._nodes!r})"

    async def _perform(self, request: Request[T]) -> T:
        handle = Handle(request)
        await self._send([handle])
        return handle.result()

    async def _send(self, handles: Sequence[Handle[Any]]) -> None:
        """Every handle has its result or its error afterwards."""
        search = Search(self._nodes, handles, self._timeout)
        while search.remaining:
            if search.pause:
                await asyncio.sleep(search.pause)
            search.look_again()
            try:
                connection = await self._connected(search.node, search.time_left())
                await connection.exchange(search.remaining, search.time_left())
            except Interruption as interruption:
                if has_fallen_silent(interruption, min(self._connect_timeout, self._silence)):
                    self._leave(search.node)
                search.interrupted(interruption)
            else:
                search.answered()

    def _leave(self, node: Address) -> None:
        """It has fallen silent: it is asked again when it has answered a ping."""
        if self._nodes.has_others(node) and self._nodes.silent.add(node):
            self._pinging[node] = asyncio.get_running_loop().create_task(self._ping(node))

    async def _ping(self, node: Address) -> None:
        try:
            while not await answers(node, self._silence):
                await asyncio.sleep(PING_AGAIN_SECONDS)
        finally:
            # A client that is closed, and used again, begins anew with it.
            self._nodes.silent.answers_again(node)
            self._pinging.pop(node, None)

    async def _connected(self, node: Address, time_left: float) -> AsyncConnection:
        """The one place where a connection is chosen."""
        while (connection := self._connections.get(node)) is None or connection.has_ended():
            if node not in self._opening:
                opening = asyncio.ensure_future(self._open(node, time_left))
                # Its failure is nobody's news when every call that waits is cancelled.
                opening.add_done_callback(lambda task: task.cancelled() or task.exception())
                self._opening[node] = opening
            # One call may be cancelled while others wait for the same connection.
            await asyncio.shield(self._opening[node])
        return connection

    async def _open(self, node: Address, time_left: float) -> AsyncConnection:
        previous = self._connections.pop(node, None)
        try:
            if previous is not None:
                await previous.close()
            silence = self._silence if self._nodes.has_others(node) else None
            most = min(self._connect_timeout, silence or self._connect_timeout)
            connection = await AsyncConnection.open(node, self._timeout, min(most, time_left), silence)
            self._connections[node] = connection
            return connection
        finally:
            del self._opening[node]
