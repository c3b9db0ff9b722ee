"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

from .address import Address, addresses_of, check_seconds
from .binding import Blocking
from .connection import Connection
from .delivery import Interruption, settle
from .operations import PagedOperations
from .pipeline import Pipeline
from .request import Handle, Request
from .search import Nodes, Search
from .silence import has_fallen_silent, ping_until_it_answers

T = TypeVar("T")


class DatastoreConnector(PagedOperations, Blocking):
    """A client of a node or a cluster, over one connection per node that it needs.

    It connects at the first call (`ping()` tells whether someone is there) and
    again at the next call after the connection was lost. Threads may share it:
    their calls take turns. A read whose connection is lost is sent once more
    over a new one, a write only if not a byte of it had been handed to the socket.

    Writes and linearizable reads go to the node that leads. What another one
    refused (`NotLeader`, `NoLeader`, `NoQuorum`) did not happen and is sent again
    elsewhere. Reads with another `consistency`, and what is about one node
    (`ping`, `stats`, `cluster` …), stay at the first address that can be reached.
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
        reply, from the one before it.

        `connect_timeout`: seconds that connecting may take. After a timeout the
        connection is closed, since the reply may still come.

        `patience`: seconds to look for a leader, from the first answer that names
        none or another one. With 0 such an answer is raised as it comes.

        `silence`: seconds for which a node may bring nothing, where others can be asked. One
        that doesn't answer a ping on a connection of its own either is left until it does.
        """
        self._nodes = Nodes(addresses_of(host, port), patience)
        self._timeout = check_seconds("timeout", timeout)
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._silence = check_seconds("silence", silence)
        self._connections: dict[Address, Connection] = {}
        # Held from a request's first byte to its reply's last: replies carry no other sign of whose they are.
        self._lock = threading.Lock()

    def pipeline(self) -> Pipeline:
        """Gathers calls to send them together: `with client.pipeline() as pipeline: …`."""
        return Pipeline(self._send)

    def close(self) -> None:
        """Closes the connections; a later call opens another one."""
        with self._lock:
            for node in list(self._connections):
                self._disconnect(node)

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
        return f"DatastoreConnector({self._nodes!r})"

    def _perform(self, request: Request[T]) -> T:
        handle = Handle(request)
        self._send([handle])
        return handle.result()

    def _send(self, handles: Sequence[Handle[Any]]) -> None:
        """Every handle has its result or its error afterwards."""
        search = Search(self._nodes, handles, self._timeout)
        while search.remaining:
            if search.pause:
                time.sleep(search.pause)
            if not self._lock.acquire(timeout=search.time_left()):
                settle(search.remaining, Interruption("client_timeout", "other calls took all of its time"))
                return
            try:
                search.look_again()
                self._attempt(search)
            finally:
                self._lock.release()

    def _attempt(self, search: Search) -> None:
        node = search.node
        try:
            self._exchange(node, search)
        except Interruption as interruption:
            is_silent = has_fallen_silent(interruption, min(self._connect_timeout, self._silence))
            if is_silent and self._nodes.has_others(node):
                if self._nodes.silent.add(node):
                    ping_until_it_answers(self._nodes.silent, node, self._silence)
            search.interrupted(interruption)
        else:
            search.answered()

    def _exchange(self, node: Address, search: Search) -> None:
        connection = self._connected(node, search.time_left())
        try:
            connection.exchange(search.remaining, search.time_left())
        except BaseException:
            # An interrupt of the program's leaves replies behind, too.
            self._disconnect(node)
            raise

    def _connected(self, node: Address, time_left: float) -> Connection:
        """The one place where a connection is chosen."""
        connection = self._connections.get(node)
        if connection is not None and not connection.has_ended():
            return connection
        self._disconnect(node)
        silence = self._silence if self._nodes.has_others(node) else None
        most = min(self._connect_timeout, silence or self._connect_timeout)
        self._connections[node] = Connection(node, max(min(most, time_left), 0.001), silence)
        return self._connections[node]

    def _disconnect(self, node: Address) -> None:
        connection = self._connections.pop(node, None)
        if connection is not None:
            connection.close()
