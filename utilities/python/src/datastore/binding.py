"""Makes methods of operations: each is written once and bound three ways.

`Operations` has a method for each operation that builds its request. Read from
an instance, such a method does what that kind of client does with a request:
a blocking client gives its result, a pipeline a handle, the asyncio client a
coroutine. Type checkers see the arguments of the one definition and the result
of the kind. `Operation` is for what one reply answers, `Listing` and
`Iteration` for what takes a page after the other.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Generic,
    TypeVar,
    overload,
)

from .paging import Walk
from .request import Handle, Request

T = TypeVar("T")
Item = TypeVar("Item")
if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")
else:
    P = TypeVar("P")  # Python 3.9 has no ParamSpec, and nothing looks at it when the program runs


class Blocking:
    """Gives results."""

    def _perform(self, request: Request[T]) -> T:
        raise NotImplementedError

    def _collect(self, walk: Walk[Item]) -> list[Item]:
        return list(self._iterate(walk))

    def _iterate(self, walk: Walk[Item]) -> Iterator[Item]:
        while (request := walk.next_request()) is not None:
            yield from walk.take(self._perform(request))


class Queuing:
    """Gives handles."""

    def _perform(self, request: Request[T]) -> Handle[T]:
        raise NotImplementedError


class Awaiting:
    """Gives coroutines."""

    async def _perform(self, request: Request[T]) -> T:
        raise NotImplementedError

    async def _collect(self, walk: Walk[Item]) -> list[Item]:
        return [item async for item in self._iterate(walk)]

    async def _iterate(self, walk: Walk[Item]) -> AsyncIterator[Item]:
        while (request := walk.next_request()) is not None:
            for item in walk.take(await self._perform(request)):
                yield item


def _method(build: Callable[..., Any], action: str) -> Callable[..., Any]:
    """A function that hands what `build` makes to the instance's own `action`."""

    @functools.wraps(build)
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, action)(build(self, *args, **kwargs))

    return method


class Operation(Generic[P, T]):
    """An operation that one reply answers."""

    def __init__(self, build: Callable[Concatenate[Any, P], Request[T]]) -> None:
        self._method = _method(build, "_perform")

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Callable[..., Any]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type[Any]) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Queuing, owner: type[Any]) -> Callable[P, Handle[T]]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type[Any]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Callable[..., Any]:
        return self._method if instance is None else MethodType(self._method, instance)


class Listing(Generic[P, Item]):
    """All items of all pages, in a list."""

    def __init__(self, build: Callable[Concatenate[Any, P], Walk[Item]]) -> None:
        self._method = _method(build, "_collect")

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Callable[..., Any]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type[Any]) -> Callable[P, list[Item]]: ...
    @overload
    def __get__(
        self, instance: Awaiting, owner: type[Any]
    ) -> Callable[P, Coroutine[Any, Any, list[Item]]]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Callable[..., Any]:
        return self._method if instance is None else MethodType(self._method, instance)


class Iteration(Generic[P, Item]):
    """All items of all pages, each page asked for when the items before it were taken."""

    def __init__(self, build: Callable[Concatenate[Any, P], Walk[Item]]) -> None:
        self._method = _method(build, "_iterate")

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Callable[..., Any]: ...
    @overload
    def __get__(self, instance: Blocking, owner: type[Any]) -> Callable[P, Iterator[Item]]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: type[Any]) -> Callable[P, AsyncIterator[Item]]: ...
    def __get__(self, instance: object, owner: type[Any]) -> Callable[..., Any]:
        return self._method if instance is None else MethodType(self._method, instance)
