"""One TCP connection of the blocking client."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from .address import Address, has_ended
from .delivery import Interruption, Opening, chunks, take_reply
from .protocol import LineBuffer
from .request import Handle
from .silence import OPENING, NotAccepted, SilenceWatch

READ_BYTES = 256 * 1024


class Connection:
    """A connection on which nothing is under way between two calls of `exchange`."""

    def __init__(self, address: Address, connect_timeout: float, silence: Optional[float] = None) -> None:
        """Connects; `Interruption` when that fails.

        `silence`: seconds for which the node may bring nothing; None: it is waited for.
        """
        self._address = address
        self._silence = silence
        deadline = time.monotonic() + connect_timeout
        self._lines = LineBuffer()
        try:
            self._socket = socket.create_connection(address, connect_timeout)
        except socket.timeout:
            raise NotAccepted(address, connect_timeout) from None
        except (OSError, UnicodeError) as error:
            raise Interruption("not_connected", f"no connection to {address}: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if silence is not None:
            self._open(connect_timeout, deadline)
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def _open(self, seconds: float, deadline: float) -> None:
        """Asks whether somebody is there, before anything is sent that could happen."""
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(OPENING)
            lines: list[bytes] = []
            while not lines:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise Interruption("not_connected", f"{self._address} closed the connection")
                lines = list(self._lines.feed(data))
            Opening(str(self._address)).take(lines[0])
        except socket.timeout:
            self._socket.close()
            raise NotAccepted(self._address, seconds) from None
        except (OSError, ValueError) as error:
            self._socket.close()
            raise Interruption("not_connected", f"no connection to {self._address}: {error}") from None
        except Interruption:
            self._socket.close()
            raise

    def close(self) -> None:
        """Closes it; what was sent may or may not be carried out."""
        self._selector.close()
        self._socket.close()

    def has_ended(self) -> bool:
        """Whether it can't be used for another exchange."""
        return has_ended(self._socket.fileno())

    def exchange(self, handles: Sequence[Handle[Any]], timeout: float) -> None:
        """Sends the requests and gives each reply to its handle.

        `timeout` is in seconds and runs for each reply from the one before it.
        After an `Interruption`, or any other exception, the connection is of no
        use: a reply that is still to come would be taken for another request's.
        """
        watch = None
        if self._silence is not None:
            watch = SilenceWatch(self._selector, self._socket, self._address, self._silence)
        try:
            self._exchange(handles, timeout, watch)
        finally:
            if watch is not None:
                watch.close()

    def _exchange(
        self, handles: Sequence[Handle[Any]], timeout: float, watch: Optional[SilenceWatch]
    ) -> None:
        outgoing = _Outgoing(handles)
        awaited: deque[Handle[Any]] = deque(handles)
        deadline = time.monotonic() + timeout
        is_broken = False
        while awaited:
            # The node may stop reading until its replies are read, so neither
            # sending nor receiving may wait for the other to be finished.
            if not is_broken:
                is_broken = not self._send(outgoing)
            self._watch(outgoing.is_pending and not is_broken)
            wait_until = deadline if watch is None else min(deadline, watch.next_look())
            ready = self._selector.select(max(0.0, wait_until - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                message = f"{self._address} sent nothing for {timeout:g} s"
                raise Interruption("client_timeout", message)
            if watch is not None:
                ready = watch.without_ping(ready)
            if not any(events & selectors.EVENT_READ for _, events in ready):
                continue
            if watch is not None:
                watch.heard()
            for line in self._receive():
                if not awaited:
                    raise Interruption("bad_reply", f"{self._address} sent more replies than asked for")
                take_reply(awaited.popleft(), line, str(self._address))
                deadline = time.monotonic() + timeout

    def _send(self, outgoing: _Outgoing) -> bool:
        """Sends what the socket takes now; whether it can take more one day.

        The node may have said why it closed: the replies are to be read, still.
        """
        try:
            while outgoing.is_pending:
                outgoing.advance(self._socket.send(outgoing.piece))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        return True

    def _watch(self, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        if self._selector.get_key(self._socket).events != events:
            self._selector.modify(self._socket, events)

    def _receive(self) -> list[bytes]:
        """The lines that the socket has now."""
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise Interruption("connection_lost", f"{self._address} was lost: {error}") from None
        if not data:
            raise Interruption("connection_lost", f"{self._address} closed the connection")
        try:
            return self._lines.feed(data)
        except ValueError as error:
            raise Interruption("bad_reply", f"{self._address} sent {error}") from None


class _Outgoing:
    """The lines that are still to be sent."""

    def __init__(self, handles: Sequence[Handle[Any]]) -> None:
        self._chunks: Iterator[list[Handle[Any]]] = chunks(handles)
        self._next_chunk()

    def _next_chunk(self) -> None:
        self._handles = next(self._chunks, [])
        self.piece = memoryview(b"".join([handle._request.line for handle in self._handles]))
        self.is_pending = bool(self._handles)

    def advance(self, sent_bytes: int) -> None:
        """So much of `piece` was handed to the socket."""
        if sent_bytes == 0:
            return
        # A chunk begins as a whole: some of it may be said to be sent that was not.
        for handle in self._handles:
            handle._begun = True
        self._handles = []
        self.piece = self.piece[sent_bytes:]
        if not self.piece:
            self._next_chunk()
