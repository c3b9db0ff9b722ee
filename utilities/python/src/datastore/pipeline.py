"""Calls that are gathered and sent together."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Callable, Generic, Optional, TypeVar

from .binding import Queuing
from .operations import Operations
from .request import Handle, Request

T = TypeVar("T")
Send = TypeVar("Send", bound=Callable[..., Any])


class PipelineBase(Operations, Queuing, Generic[Send]):
    """The operations, each giving a handle whose `result()` is there when the pipeline was sent.

    A call sees the effect of every call before it, and a search may see some of
    what comes behind it, too. An error is raised by its own handle only.
    """

    def __init__(self, send: Send) -> None:
        """Made by `client.pipeline()`."""
        self._transmit = send
        self._queued: list[Handle[Any]] = []
        self._sent: list[Handle[Any]] = []

    def _perform(self, request: Request[T]) -> Handle[T]:
        handle = Handle(request)
        self._queued.append(handle)
        return handle

    def results(self) -> list[Any]:
        """The results of all calls that were sent, in their order; raises the first error among them."""
        return [handle.result() for handle in self._sent]

    def _take_queued(self) -> list[Handle[Any]]:
        handles, self._queued = self._queued, []
        self._sent += handles
        return handles


class Pipeline(PipelineBase[Callable[[Sequence[Handle[Any]]], None]]):
    """`with client.pipeline() as pipeline:` sends at the end of the block.

    A block that ends with an exception sends nothing.
    """

    def send(self) -> None:
        """Sends what was queued since the last time and waits for the replies; raises none of them."""
        self._transmit(self._take_queued())

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.send()


class AsyncPipeline(PipelineBase[Callable[[Sequence[Handle[Any]]], Coroutine[Any, Any, None]]]):
    """`async with client.pipeline() as pipeline:` sends at the end of the block.

    A block that ends with an exception sends nothing.
    """

    async def send(self) -> None:
        """Sends what was queued since the last time and waits for the replies; raises none of them."""
        await self._transmit(self._take_queued())

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is None:
            await self.send()
