"""The operations that answer in pages: given what is searched for, a builder of page requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from .arguments import given, text
from .protocol import Reply
from .request import Request
from .results import Page, ScanItem

Item = TypeVar("Item")
PageBuilder = Callable[[Optional[int], Optional[str]], Request[Page[Item]]]
"""Takes how many items at most, and the cursor to go on behind; None for neither."""


def by_value(value: Any, options: Mapping[str, Any]) -> PageBuilder[str]:
    """Keys with this value."""
    return _pages("search_by_value", {"value": value, **options}, _keys)


def by_text(query: str, options: Mapping[str, Any]) -> PageBuilder[str]:
    """Keys whose value holds these words."""
    return _pages("search_text", {"query": text("query", query), **options}, _keys)


def by_text_scored(query: str, options: Mapping[str, Any]) -> PageBuilder[tuple[str, float]]:
    """The same keys with their scores."""

    def read(reply: Reply) -> Page[tuple[str, float]]:
        pairs = list(zip(reply.texts("keys"), reply.numbers("scores")))
        total_any = reply.integer("total_any") if "total_any" in reply.fields else None
        return Page(pairs, reply.optional_text("next"), reply.integer("total"), total_any)

    return _pages("search_text", {"query": text("query", query), **options}, read)


def by_key(options: Mapping[str, Any]) -> PageBuilder[ScanItem]:
    """A range of keys."""

    def read(reply: Reply) -> Page[ScanItem]:
        items = [_scan_item(item) for item in reply.objects("items")]
        return Page(items, reply.optional_text("next"))

    return _pages("scan", dict(options), read)


def _keys(reply: Reply) -> Page[str]:
    return Page(reply.texts("keys"), reply.optional_text("next"), reply.integer("total"))


def _scan_item(item: Reply) -> ScanItem:
    vector: Optional[list[float]] = item.numbers("vector") if "vector" in item.fields else None
    return ScanItem(item.text("key"), item.fields.get("value"), item.text("version"), vector)


def _pages(op: str, fields: dict[str, Any], read: Callable[[Reply], Page[Item]]) -> PageBuilder[Item]:
    def page(limit: Optional[int], after: Optional[str]) -> Request[Page[Item]]:
        return Request(op, {**fields, **given(limit=limit, after=after)}, read)

    return page
