"""One TCP connection of the asyncio client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Optional, cast

from .address import Address, has_ended
from .delivery import Interruption, Opening, chunks, take_reply
from .protocol import LineBuffer
from .request import Handle
from .silence import OPENING, FellSilent, NotAccepted, answers


class AsyncConnection(asyncio.Protocol):
    """Writes requests at once and gives replies to their handles in order.

    A caller that stops waiting leaves its handle in the queue, where it takes
    its reply like any other, so that the ones behind it get theirs.
    """

    def __init__(self, address: Address, timeout: float, silence: Optional[float]) -> None:
        self._address = address
        self._timeout = timeout
        self._silence = silence
        self._heard = self._waits_since = 0.0
        # What looks again when the node has brought nothing, and the ping that it has begun.
        self._look: Optional[asyncio.TimerHandle] = None
        self._ping: Optional[asyncio.Task[None]] = None
        # What the connection begins with is answered.
        self._opened: Optional[asyncio.Future[None]] = None
        self._loop = asyncio.get_running_loop()
        self._lines = LineBuffer()
        # The handles whose replies are to come; the last one of an exchange with what tells its end.
        self._awaited: deque[tuple[Handle[Any], Optional[asyncio.Future[None]]]] = deque()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._interruption: Optional[Interruption] = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport

    @classmethod
    async def open(
        cls, address: Address, timeout: float, connect_timeout: float, silence: Optional[float] = None
    ) -> AsyncConnection:
        """Connects; `Interruption` when that fails.

        `silence`: seconds for which the node may bring nothing; None: it is waited for.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + connect_timeout
        opening = loop.create_connection(lambda: cls(address, timeout, silence), address.host, address.port)
        try:
            # The event loop sets TCP_NODELAY.
            _, connection = await asyncio.wait_for(opening, connect_timeout)
        except asyncio.TimeoutError:
            raise NotAccepted(address, connect_timeout) from None
        except (OSError, UnicodeError) as error:
            raise Interruption("not_connected", f"no connection to {address}: {error}") from None
        if silence is not None:
            await connection._open(connect_timeout, max(0.001, deadline - loop.time()))
        return connection

    async def _open(self, seconds: float, left: float) -> None:
        """Asks whether somebody is there, before anything is sent that could happen."""
        self._opened = self._loop.create_future()
        self._transport.write(OPENING)
        try:
            await asyncio.wait_for(self._opened, left)
        except asyncio.TimeoutError:
            silent = NotAccepted(self._address, seconds)
            self.interrupt(silent)
            raise silent from None
        finally:
            self._opened = None

    def has_ended(self) -> bool:
        """Whether it can't be used for another exchange."""
        if self._interruption is not None or self._transport.is_closing():
            return True
        # The event loop may not have come to look at the socket since its end came in.
        return not self._awaited and has_ended(self._transport.get_extra_info("socket").fileno())

    async def exchange(self, handles: Sequence[Handle[Any]], time_left: float) -> None:
        """Sends the requests and waits until each handle has its reply; `Interruption` when one has none.

        Other exchanges may be under way. All is written before anything is waited for.
        `time_left`: seconds that a call by itself has.
        """
        finished: asyncio.Future[None] = self._loop.create_future()
        if not self._awaited:
            self._start_timer()
            self._waits_since = self._loop.time()
        for chunk in chunks(handles):
            for handle in chunk:
                # What the transport holds back may be sent at any moment.
                handle._begun = True
                self._awaited.append((handle, finished if handle is handles[-1] else None))
            self._transport.write(b"".join([handle._request.line for handle in chunk]))
        self._watch()
        if len(handles) > 1:
            await finished
            return
        expiry = self._loop.call_later(time_left, self._expire, finished)
        try:
            await finished
        finally:
            expiry.cancel()

    def _expire(self, finished: asyncio.Future[None]) -> None:
        """A call has taken as long as it may. Its reply still counts, for the order of the others."""
        interruption = Interruption("client_timeout", f"{self._address} took {self._timeout:g} s and more")
        silent_for = self._loop.time() - max(self._heard, self._waits_since)
        if silent_for >= 0.9 * self._timeout:
            # The others have waited for as long as they may, too, or nearly.
            self.interrupt(interruption)
        elif not finished.done():
            finished.set_exception(interruption)

    async def close(self) -> None:
        """Closes it; what was sent may or may not be carried out."""
        self.interrupt(Interruption("connection_lost", f"{self._address} was closed by the caller"))
        # A caller that stops waiting must not cancel what others may wait for.
        await asyncio.shield(self._closed)

    def interrupt(self, interruption: Interruption) -> None:
        """Ends it, and every exchange with it."""
        if self._interruption is not None:
            return
        self._interruption = interruption
        self._stop_timer()
        self._stop_watching()
        self._transport.abort()
        awaited, self._awaited = self._awaited, deque()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(interruption)
        for _, finished in awaited:
            if finished is not None and not finished.done():
                finished.set_exception(interruption)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's word that it is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """The event loop's word that something came in."""
        self._heard = self._loop.time()
        try:
            for line in self._lines.feed(data):
                self._take(line)
        except Interruption as interruption:
            self.interrupt(interruption)
        except ValueError as error:
            self.interrupt(Interruption("bad_reply", f"{self._address} sent {error}"))

    def eof_received(self) -> None:
        """The event loop's word that nothing more will come in."""
        # Not left to `connection_lost`, which waits until everything is written.
        self.interrupt(Interruption("connection_lost", f"{self._address} closed the connection"))

    def connection_lost(self, error: Optional[Exception]) -> None:
        """The event loop's word that it is at its end."""
        reason = f"was lost: {error}" if error else "closed the connection"
        self.interrupt(Interruption("connection_lost", f"{self._address} {reason}"))
        if not self._closed.done():
            self._closed.set_result(None)

    def _take(self, line: bytes) -> None:
        if self._opened is not None and not self._opened.done():
            Opening(str(self._address)).take(line)
            self._opened.set_result(None)
            return
        if not self._awaited:
            raise Interruption("bad_reply", f"{self._address} sent more replies than asked for")
        handle, finished = self._awaited[0]
        take_reply(handle, line, str(self._address))
        self._awaited.popleft()
        if finished is not None and not finished.done():
            finished.set_result(None)
        self._stop_timer()
        if self._awaited:
            self._start_timer()

    def _watch(self) -> None:
        """Pings the node when it has brought nothing for a while."""
        if self._silence is None or self._look is not None or self._ping is not None:
            return
        if self._interruption is not None or not self._awaited:
            return
        begin = max(self._heard, self._waits_since) + self._silence / 3
        if self._loop.time() < begin:
            self._look = self._loop.call_at(begin, self._look_again)
        else:
            self._ping = self._loop.create_task(self._ask(self._silence))

    def _look_again(self) -> None:
        self._look = None
        self._watch()

    async def _ask(self, silence: float) -> None:
        since = max(self._heard, self._waits_since)
        left = max(since + silence - self._loop.time(), silence / 2)
        is_there = await answers(self._address, left)
        self._ping = None
        if is_there:
            # It is there, and only slow: that counts as if it had brought something.
            self._heard = self._loop.time()
        elif self._heard <= since and self._awaited:
            self.interrupt(FellSilent(self._address, self._loop.time() - since))
        self._watch()

    def _stop_watching(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None

    def _start_timer(self) -> None:
        message = f"{self._address} sent nothing for {self._timeout:g} s"
        interruption = Interruption("client_timeout", message)
        self._timer = self._loop.call_later(self._timeout, self.interrupt, interruption)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
