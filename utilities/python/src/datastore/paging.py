"""Goes through the pages of a search or a scan, without knowing who sends the requests."""

from __future__ import annotations

from typing import Callable, Generic, Optional, TypeVar

from .request import Request
from .results import Page

Item = TypeVar("Item")


class Walk(Generic[Item]):
    """One way through the pages, as far as `limit` items.

    The first request is built at once, so that wrong arguments are told by the
    call and not by the first item.
    """

    def __init__(
        self,
        page: Callable[[Optional[int], Optional[str]], Request[Page[Item]]],
        limit: Optional[int],
        page_size: Optional[int] = None,
    ) -> None:
        """`page` builds the request for so many items (None: as many as the node likes) after a cursor."""
        self._page = page
        self._remaining = limit
        self._page_size = page_size
        self._request: Optional[Request[Page[Item]]] = page(self._page_limit(), None)

    def next_request(self) -> Optional[Request[Page[Item]]]:
        """What to ask for now; None when all is there."""
        return self._request

    def take(self, page: Page[Item]) -> list[Item]:
        """The page's items; the next request is the page's behind it."""
        items = page.items
        if self._remaining is not None:
            items = items[: self._remaining]
            self._remaining -= len(items)
        is_done = page.next is None or self._remaining == 0
        self._request = None if is_done else self._page(self._page_limit(), page.next)
        return items

    def _page_limit(self) -> Optional[int]:
        given = [n for n in (self._remaining, self._page_size) if n is not None]
        return min(given) if given else None
