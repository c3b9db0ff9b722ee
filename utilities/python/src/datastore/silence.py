"""Nodes that have fallen silent: a process that is stopped, a machine that is gone without a word.

    a connection is made ──► a ping on it ──► no answer: left, and nothing was sent that could happen
    no byte for a third of the time ──► a ping over a connection of its own ──► an answer: it is only slow
                                                                           └──► none, and still no byte: left
    left ──► not asked while others are there ──► pinged again and again ──► answers: asked again

A connection says nothing of these: its system goes on to acknowledge, or packets are sent again
for minutes. A node that computes a slow answer is there all the same, and says so to a ping.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
import weakref
from typing import Optional

from .address import Address
from .delivery import Interruption

Ready = tuple[selectors.SelectorKey, int]
OPENING = b'{"op":"ping","id":0}\n'
"""The first line of a connection to a node beside which others can be asked: a stopped process has its
system accept connections, and what is sent there may happen one day."""
PING = b'{"op":"ping"}\n'
PING_AGAIN_SECONDS = 0.5
"""Between two pings of a node that was left."""


class FellSilent(Interruption):
    """The node brings nothing and answers no ping: it is left."""

    def __init__(self, address: Address, seconds: float) -> None:
        super().__init__("connection_lost", f"{address} sent nothing for {seconds:.1f} s and answers no ping")


class NotAccepted(Interruption):
    """The node took no connection within the time, or brought nothing on it: it is left, where others can be asked."""

    def __init__(self, address: Address, seconds: float) -> None:
        super().__init__("not_connected", f"no connection to {address}, and nothing on it, within {seconds:g} s")
        self.seconds = seconds


def has_fallen_silent(interruption: Interruption, patience: float) -> bool:
    """Whether the node is left. One that a call had less than `patience` seconds for may be there."""
    if isinstance(interruption, NotAccepted):
        return interruption.seconds >= patience
    return isinstance(interruption, FellSilent)


class SilentNodes:
    """The nodes that were left, of one client."""

    def __init__(self) -> None:
        self._addresses: set[Address] = set()
        self._lock = threading.Lock()

    def __contains__(self, address: Address) -> bool:
        return address in self._addresses

    def add(self, address: Address) -> bool:
        """It is left. Says whether that is news: then somebody has to ping it."""
        with self._lock:
            is_news = address not in self._addresses
            self._addresses.add(address)
            return is_news

    def answers_again(self, address: Address) -> None:
        """It is asked like any other."""
        with self._lock:
            self._addresses.discard(address)


def ping_until_it_answers(nodes: SilentNodes, address: Address, silence: float) -> None:
    """On a thread that ends with the client."""
    reference = weakref.ref(nodes)
    thread = threading.Thread(target=_ping_again, args=(reference, address, silence), daemon=True)
    thread.start()


def _ping_again(reference: weakref.ref[SilentNodes], address: Address, silence: float) -> None:
    while reference() is not None:
        if _answers(address, silence):
            nodes = reference()
            if nodes is not None:
                nodes.answers_again(address)
            return
        time.sleep(PING_AGAIN_SECONDS)


def _answers(address: Address, silence: float) -> bool:
    try:
        with socket.create_connection(address, silence) as connection:
            connection.sendall(PING)
            return bool(connection.recv(1))
    except (OSError, UnicodeError):
        return False


async def answers(address: Address, silence: float) -> bool:
    """Whether a node answers a ping over a connection of its own within this time; whatever it says."""
    try:
        return await asyncio.wait_for(_pinged(address), silence)
    except (asyncio.TimeoutError, OSError, UnicodeError):
        return False


async def _pinged(address: Address) -> bool:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(PING)
        return bool(await reader.read(1))
    finally:
        # Not closed in good order: nobody waits for its end.
        writer.transport.abort()


class SilenceWatch:
    """Finds out whether a node that brings nothing on a connection is there.

    It shares the selector of who waits on that connection, and never waits itself.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        connection: socket.socket,
        address: Address,
        silence: float,
    ) -> None:
        self._selector = selector
        self._connection = connection
        self._address = address
        self._silence = silence
        self._heard = time.monotonic()
        self._ping: Optional[socket.socket] = None
        self._pinged = 0.0

    def next_look(self) -> float:
        """When to look again at the latest."""
        if self._ping is None:
            return self._heard + self._silence / 3
        return max(self._heard + self._silence, self._pinged + self._silence / 2)

    def heard(self) -> None:
        """The node has brought something."""
        self._heard = time.monotonic()
        self.close()

    def without_ping(self, ready: list[Ready]) -> list[Ready]:
        """What is ready on the connection itself. Goes on with the ping; `FellSilent` when the node counts as gone."""
        on_connection = [(key, events) for key, events in ready if key.fileobj is self._connection]
        if not any(events & selectors.EVENT_READ for _, events in on_connection):
            self._look(time.monotonic())
        return on_connection

    def _look(self, now: float) -> None:
        if self._ping is None and now >= self._heard + self._silence / 3:
            self._begin(now)
        elif self._ping is not None and self._is_answered():
            # It is there, and only slow: that counts as if it had brought something.
            self.heard()
        elif now >= self.next_look():
            self.close()
            raise FellSilent(self._address, now - self._heard)

    def close(self) -> None:
        """Gives up the ping that is under way."""
        if self._ping is not None:
            ping, self._ping = self._ping, None
            if ping in self._selector.get_map():
                self._selector.unregister(ping)
            ping.close()

    def _begin(self, now: float) -> None:
        self._pinged = now
        self._ping = socket.socket(self._connection.family, socket.SOCK_STREAM)
        self._ping.setblocking(False)
        try:
            self._ping.connect_ex(self._connection.getpeername())
            self._selector.register(self._ping, selectors.EVENT_WRITE)
        except OSError:
            pass  # The connection has ended meanwhile; it says so itself.

    def _is_answered(self) -> bool:
        ping = self._ping
        if ping is None or ping not in self._selector.get_map():
            return False
        try:
            if self._selector.get_key(ping).events == selectors.EVENT_READ:
                return bool(ping.recv(1)) or self._forget(ping)
            if ping.send(PING):
                self._selector.modify(ping, selectors.EVENT_READ)
            return False
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return self._forget(ping)

    def _forget(self, ping: socket.socket) -> bool:
        """It was refused: nothing more will come of it."""
        self._selector.unregister(ping)
        return False
