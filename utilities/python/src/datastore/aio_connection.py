"""One TCP connection of the asyncio client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Optional, cast

from .address import Address, has_ended
from .delivery import Interruption, chunks, take_reply
from .protocol import LineBuffer
from .request import Handle


class AsyncConnection(asyncio.Protocol):
    """Writes requests at once and gives replies to their handles in order.

    A caller that stops waiting leaves its handle in the queue, where it takes
    its reply like any other, so that the ones behind it get theirs.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._lines = LineBuffer()
        # The handles whose replies are to come; the last one of an exchange with what tells its end.
        self._awaited: deque[tuple[Handle[Any], Optional[asyncio.Future[None]]]] = deque()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._interruption: Optional[Interruption] = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: Address, timeout: float, connect_timeout: float) -> AsyncConnection:
        """Connects; `Interruption` when that fails."""
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(lambda: cls(address, timeout), address.host, address.port)
        try:
            # The event loop sets TCP_NODELAY.
            _, connection = await asyncio.wait_for(opening, connect_timeout)
        except asyncio.TimeoutError:
            message = f"no connection to {address} within {connect_timeout:g} s"
            raise Interruption("not_connected", message) from None
        except (OSError, UnicodeError) as error:
            raise Interruption("not_connected", f"no connection to {address}: {error}") from None
        return connection

    def has_ended(self) -> bool:
        """Whether it can't be used for another exchange."""
        if self._interruption is not None or self._transport.is_closing():
            return True
        # The event loop may not have come to look at the socket since its end came in.
        return not self._awaited and has_ended(self._transport.get_extra_info("socket").fileno())

    async def exchange(self, handles: Sequence[Handle[Any]]) -> None:
        """Sends the requests and waits until each handle has its reply; `Interruption` when one has none.

        Other exchanges may be under way. All is written before anything is waited for.
        """
        finished: asyncio.Future[None] = self._loop.create_future()
        if not self._awaited:
            self._start_timer()
        for chunk in chunks(handles):
            for handle in chunk:
                # What the transport holds back may be sent at any moment.
                handle._begun = True
                self._awaited.append((handle, finished if handle is handles[-1] else None))
            self._transport.write(b"".join([handle._request.line for handle in chunk]))
        await finished

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
        self._transport.abort()
        awaited, self._awaited = self._awaited, deque()
        for _, finished in awaited:
            if finished is not None and not finished.done():
                finished.set_exception(interruption)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's word that it is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """The event loop's word that something came in."""
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

    def _start_timer(self) -> None:
        message = f"{self._address} sent nothing for {self._timeout:g} s"
        interruption = Interruption("client_timeout", message)
        self._timer = self._loop.call_later(self._timeout, self.interrupt, interruption)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
