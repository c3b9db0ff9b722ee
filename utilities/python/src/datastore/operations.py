"""Every operation of docs/PROTOCOL.md: how it is asked, how its reply is read.

Each method builds a request; the client that it belongs to sends it (see
`binding`). Arguments behind the `*` are given by name, and one that is left out
is not sent, so that the node's default counts. These are the same everywhere:

- `consistency` of a read: `"linearizable"` (the node's default), `"local"` or
  `{"max_staleness_ms": n}`.
- `after_version` of a read, `r` of `get` and `w` of writes belong to dynamo mode.
  The latter two are a number of members, `"majority"` or `"all"`.
- `if_version`: the write happens only if the key has this version, or, for
  None, if there is no such key; else `VersionMismatch`.

Wrong arguments raise `TypeError` or `ValueError` before anything is sent;
everything else that fails raises a `DatastoreError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional, SupportsFloat, Union, cast

from . import arguments, searches
from .arguments import NOT_GIVEN, Consistency, Copies, NotGiven, Records, condition, given, text
from .binding import Iteration, Listing, Operation
from .paging import Walk
from .protocol import Reply
from .request import Request
from .results import BulkWritten, Cluster, Entry, Hello, Page, ScanItem, Snapshot, VectorEntry


class Operations:
    """The operations that one reply answers: connectors and pipelines have them.

    What is written here as a `Request[T]` is T from `DatastoreConnector`, a
    `Handle[T]` from a pipeline, and to be awaited from `AsyncDatastoreConnector`.
    """

    @Operation
    def call(self, op: str, /, **fields: Any) -> Request[dict[str, Any]]:
        """Any operation by its name, with the protocol's own fields; gives the reply's fields.

        None is sent as null. An operation that this client doesn't know counts as a write.
        """
        if "op" in fields:
            raise TypeError("`op` is the first argument, not a field")
        return Request(op, fields, _fields)

    @Operation
    def ping(self) -> Request[bool]:
        """True; raises `NotConnected` when nobody is there."""
        return Request("ping", {}, lambda reply: reply.flag("pong"))

    @Operation
    def hello(
        self, *, protocol: Optional[int] = 1, client: Optional[str] = "datastore-connector/python"
    ) -> Request[Hello]:
        """What a client should know of the node; raises `UnsupportedProtocol`."""
        fields = given(protocol=protocol, client=client)
        return Request("hello", fields, lambda reply: cast(Hello, _fields(reply)))

    @Operation
    def set(
        self,
        key: str,
        value: Any,
        *,
        if_version: Union[str, None, NotGiven] = NOT_GIVEN,
        if_absent: Optional[bool] = None,
        w: Optional[Copies] = None,
    ) -> Request[str]:
        """Replaces the key's value with anything that `json.dumps` can do; gives its version.

        `if_absent=True`: only if the key doesn't exist; else `AlreadyExists`.
        """
        fields = {"key": text("key", key), "value": value, **condition(if_version)}
        return Request("set", {**fields, **given(if_absent=if_absent, w=w)}, _version)

    @Operation
    def get(
        self,
        key: str,
        *,
        default: Any = None,
        consistency: Optional[Consistency] = None,
        r: Optional[Copies] = None,
        after_version: Optional[str] = None,
    ) -> Request[Any]:
        """The key's value, or `default` when it has none. `get_entry` tells null from none."""
        fields = given(consistency=consistency, r=r, after_version=after_version)

        def read(reply: Reply) -> Any:
            return reply.value("value") if reply.flag("found") else default

        return Request("get", {"key": text("key", key), **fields}, read)

    @Operation
    def get_entry(
        self,
        key: str,
        *,
        consistency: Optional[Consistency] = None,
        r: Optional[Copies] = None,
        after_version: Optional[str] = None,
    ) -> Request[Entry]:
        """The key's value, whether it has one, and its version."""
        fields = given(consistency=consistency, r=r, after_version=after_version)
        return Request("get", {"key": text("key", key), **fields}, lambda reply: _entry(key, reply))

    @Operation
    def delete(
        self,
        key: str,
        *,
        if_version: Union[str, None, NotGiven] = NOT_GIVEN,
        w: Optional[Copies] = None,
    ) -> Request[bool]:
        """Removes the key's value and vector; whether there was anything to remove."""
        fields = {"key": text("key", key), **condition(if_version), **given(w=w)}
        return Request("delete", fields, lambda reply: reply.flag("deleted"))

    @Operation
    def bulk_set(self, records: Records, *, w: Optional[Copies] = None) -> Request[BulkWritten]:
        """Replaces the values of up to 10,000 keys, all or nothing. A mapping, or (key, value) pairs."""
        fields = {"records": arguments.records(records), **given(w=w)}
        return Request("bulk_set", fields, _bulk_written)

    @Operation
    def bulk_get(
        self,
        keys: Iterable[str],
        *,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[list[Entry]]:
        """The entries of up to 10,000 keys, in the order asked."""
        fields = given(consistency=consistency, after_version=after_version)
        return Request("bulk_get", {"keys": arguments.texts("keys", keys), **fields}, _entries)

    @Operation
    def bulk_delete(self, keys: Iterable[str], *, w: Optional[Copies] = None) -> Request[int]:
        """Removes up to 10,000 keys, all or nothing; how many of them existed."""
        fields = {"keys": arguments.texts("keys", keys), **given(w=w)}
        return Request("bulk_delete", fields, _count)

    @Operation
    def add_vector(
        self,
        key: str,
        vector: Iterable[SupportsFloat],
        *,
        if_version: Union[str, None, NotGiven] = NOT_GIVEN,
        w: Optional[Copies] = None,
    ) -> Request[str]:
        """Replaces the key's vector, kept as 32-bit floats; gives the key's version."""
        fields = {"key": text("key", key), "vector": arguments.vector(vector)}
        return Request("add_vector", {**fields, **condition(if_version), **given(w=w)}, _version)

    @Operation
    def get_vector(
        self,
        key: str,
        *,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[VectorEntry]:
        """The key's vector, whether it has one, and the key's version."""
        fields = given(consistency=consistency, after_version=after_version)

        def read(reply: Reply) -> VectorEntry:
            found = reply.flag("found")
            numbers = reply.numbers("vector") if found else None
            return VectorEntry(key, found, numbers, reply.optional_text("version"))

        return Request("get_vector", {"key": text("key", key), **fields}, read)

    @Operation
    def vector_search(
        self,
        vector: Iterable[SupportsFloat],
        *,
        top_k: Optional[int] = None,
        prefix: Optional[str] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[list[tuple[str, float]]]:
        """The nearest (key, cosine similarity) pairs, highest first; 10 unless `top_k` says otherwise."""
        fields = given(top_k=top_k, prefix=prefix, consistency=consistency, after_version=after_version)

        def read(reply: Reply) -> list[tuple[str, float]]:
            return [(match.text("key"), match.number("score")) for match in reply.objects("matches")]

        return Request("vector_search", {"vector": arguments.vector(vector), **fields}, read)

    @Operation
    def search_by_value_page(
        self,
        value: Any,
        *,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[Page[str]]:
        """One page of the keys with this value that begin with `prefix`, in key order."""
        options = given(prefix=prefix, consistency=consistency, after_version=after_version)
        return searches.by_value(value, options)(limit, after)

    @Operation
    def search_text_page(
        self,
        query: str,
        *,
        match: Optional[str] = None,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[Page[tuple[str, float]]]:
        """One page of (key, BM25 score) pairs, best first. `match` and `prefix`: see `search_text`."""
        options = given(match=match, prefix=prefix, consistency=consistency, after_version=after_version)
        return searches.by_text_scored(query, options)(limit, after)

    @Operation
    def scan_page(
        self,
        *,
        prefix: Optional[str] = None,
        start: Optional[str] = None,
        end: Optional[str] = None,
        reverse: Optional[bool] = None,
        values: Optional[bool] = None,
        vectors: Optional[bool] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[Page[ScanItem]]:
        """One page of a range of keys. The arguments are those of `scan`."""
        bounds = given(prefix=prefix, start=start, end=end, reverse=reverse)
        options = given(values=values, vectors=vectors, consistency=consistency, after_version=after_version)
        return searches.by_key({**bounds, **options})(limit, after)

    @Operation
    def count(
        self,
        *,
        prefix: Optional[str] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Request[int]:
        """How many keys there are, or how many begin with `prefix`."""
        fields = given(prefix=prefix, consistency=consistency, after_version=after_version)
        return Request("count", fields, _count)

    @Operation
    def stats(self, *, section: Optional[str] = None) -> Request[dict[str, Any]]:
        """The node's figures by section, or those of one section; see docs/PROTOCOL.md."""
        return Request("stats", given(section=section), _fields)

    @Operation
    def cluster(self) -> Request[Cluster]:
        """The members and who leads."""
        return Request("cluster", {}, lambda reply: cast(Cluster, _fields(reply)))

    @Operation
    def snapshot(self) -> Request[Snapshot]:
        """Makes a snapshot now. It may take longer than `timeout`: its outcome is unknown then."""
        return Request("snapshot", {}, lambda reply: cast(Snapshot, _fields(reply)))

    @Operation
    def promote(
        self, node_id: Optional[int] = None, *, force: Optional[bool] = None
    ) -> Request[dict[str, Any]]:
        """Hands leadership to a node. Needs a cluster."""
        return Request("promote", given(node_id=node_id, force=force), _fields)

    @Operation
    def add_member(self, node_id: int, host: str, port: int) -> Request[dict[str, Any]]:
        """Adds a node. Needs a cluster."""
        return Request("add_member", {"node_id": node_id, "host": host, "port": port}, _fields)

    @Operation
    def remove_member(self, node_id: int) -> Request[dict[str, Any]]:
        """Removes a node. Needs a cluster."""
        return Request("remove_member", {"node_id": node_id}, _fields)

    @Operation
    def conflicts(
        self, *, limit: Optional[int] = None, after: Optional[str] = None
    ) -> Request[dict[str, Any]]:
        """One page of lost races. Needs a cluster in dynamo mode."""
        return Request("conflicts", given(limit=limit, after=after), _fields)

    @Operation
    def evict(self, node_id: int) -> Request[dict[str, Any]]:
        """Removes a node for good. Needs a cluster in dynamo mode."""
        return Request("evict", {"node_id": node_id}, _fields)


class PagedOperations(Operations):
    """The operations that may take several requests, too: connectors have them.

    Pages are not a snapshot: a key that is written between two pages shows up,
    or not, by where it stands at that moment.
    """

    @Listing
    def search_by_value(
        self,
        value: Any,
        *,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Walk[str]:
        """The keys whose value is the same JSON data, in key order: all, or the first `limit`.

        `prefix`: only keys that begin with it.
        """
        options = given(prefix=prefix, consistency=consistency, after_version=after_version)
        return Walk(searches.by_value(value, options), limit)

    @Listing
    def search_text(
        self,
        query: str,
        *,
        match: Optional[str] = None,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Walk[str]:
        """The keys whose value holds these words, best first: all, or the first `limit`.

        `match`: `"all"` words of the query (the node's default) or `"any"`. `prefix`: only keys that begin with it.
        """
        options = given(match=match, prefix=prefix, consistency=consistency, after_version=after_version)
        return Walk(searches.by_text(query, options), limit)

    @Listing
    def search_text_scored(
        self,
        query: str,
        *,
        match: Optional[str] = None,
        prefix: Optional[str] = None,
        limit: Optional[int] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Walk[tuple[str, float]]:
        """As `search_text`, with each key's BM25 score: (key, score) pairs."""
        options = given(match=match, prefix=prefix, consistency=consistency, after_version=after_version)
        return Walk(searches.by_text_scored(query, options), limit)

    @Iteration
    def scan(
        self,
        *,
        prefix: Optional[str] = None,
        start: Optional[str] = None,
        end: Optional[str] = None,
        reverse: Optional[bool] = None,
        values: Optional[bool] = None,
        vectors: Optional[bool] = None,
        limit: Optional[int] = None,
        page_size: Optional[int] = None,
        consistency: Optional[Consistency] = None,
        after_version: Optional[str] = None,
    ) -> Walk[ScanItem]:
        """Goes through keys in the byte order of their UTF-8, page by page as items are taken.

        `start` is inclusive and `end` exclusive, in either direction. `values=False`
        leaves the values out, `vectors=True` adds the vectors. `limit`: so many
        items in all; `page_size`: so many a request (1,000 unless given).
        """
        bounds = given(prefix=prefix, start=start, end=end, reverse=reverse)
        options = given(values=values, vectors=vectors, consistency=consistency, after_version=after_version)
        return Walk(searches.by_key({**bounds, **options}), limit, page_size)


def _fields(reply: Reply) -> dict[str, Any]:
    return {name: value for name, value in reply.fields.items() if name != "ok"}


def _version(reply: Reply) -> str:
    return reply.text("version")


def _count(reply: Reply) -> int:
    return reply.integer("count")


def _entry(key: str, reply: Reply) -> Entry:
    return Entry(key, reply.flag("found"), reply.value("value"), reply.optional_text("version"))


def _entries(reply: Reply) -> list[Entry]:
    return [_entry(entry.text("key"), entry) for entry in reply.objects("values")]


def _bulk_written(reply: Reply) -> BulkWritten:
    return BulkWritten(_count(reply), reply.optional_text("version"))
