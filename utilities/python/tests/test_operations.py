"""Every operation does what docs/PROTOCOL.md says, in both clients."""

from __future__ import annotations

import math
import unittest
from typing import Any, Callable

from support import NodeCase

from datastore import (
    AlreadyExists,
    BadRequest,
    BadVector,
    BulkWritten,
    DatastoreError,
    DimensionMismatch,
    Entry,
    KeyTooLarge,
    UnknownOp,
    UnsupportedInMode,
    UnsupportedProtocol,
    VersionMismatch,
)

Call = Callable[[], object]


class Operations(NodeCase):
    def test_ping_and_hello_tell_who_is_there(self) -> None:
        self.assertIs(self.c.ping(), True)
        hello = self.c.hello()
        self.assertEqual((hello["protocol"], hello["node_id"]), (1, 1))
        self.assertEqual(hello["leader"]["port"], self.node.port)
        with self.assertRaises(UnsupportedProtocol):
            self.c.hello(protocol=2)

    def test_a_value_comes_back_as_it_was_set(self) -> None:
        values: list[Any] = [
            None, True, 0, -1, 2**53 + 1, 10**30, 0.1, 1e300, -0.0, 5.0, "", "two\nlines",
            "Straße 東京 \U0001f600 \u2028 \x00 \"quoted\" \\", [], {}, [1, [2, {"ü": [None]}]],
        ]  # fmt: skip
        for value in values:
            self.c.set("schlüssel 🔑", value)
            back = self.c.get("schlüssel 🔑")
            self.assertEqual(back, value)
            self.assertIs(type(back), type(value))
        self.assertEqual(math.copysign(1, (self.c.set("k", -0.0), self.c.get("k"))[1]), -1)

    def test_large_values_come_back(self) -> None:
        value = "é" * (4 * 1024 * 1024 - 1)
        self.c.set("large", value)
        self.assertEqual(self.c.get("large"), value)
        # Beyond any socket's buffer, in one reply.
        self.c.bulk_set({f"large:{n}": "x" * 3_000_000 for n in range(5)})
        entries = self.c.bulk_get([f"large:{n}" for n in range(5)] * 2)
        self.assertEqual([len(entry.value) for entry in entries], [3_000_000] * 10)

    def test_get_gives_the_default_only_where_there_is_no_value(self) -> None:
        self.c.set("null", None)
        self.assertIsNone(self.c.get("null", default=5))
        self.assertIsNone(self.c.get("nobody"))
        self.assertEqual(self.c.get("nobody", default=5), 5)

    def test_get_entry_tells_null_from_none(self) -> None:
        version = self.c.set("null", None)
        self.assertEqual(self.c.get_entry("null"), Entry("null", True, None, version))
        self.assertEqual(self.c.get_entry("nobody"), Entry("nobody", False, None, None))

    def test_delete_tells_whether_there_was_something(self) -> None:
        self.c.set("k", 1)
        self.assertIs(self.c.delete("k"), True)
        self.assertIs(self.c.delete("k"), False)

    def test_if_version_left_out_is_not_if_version_none(self) -> None:
        first = self.c.set("k", 1, if_version=None)
        second = self.c.set("k", 2)
        with self.assertRaises(VersionMismatch) as caught:
            self.c.set("k", 3, if_version=None)
        self.assertEqual(caught.exception.current, second)
        self.assertEqual(caught.exception.outcome, "not_applied")
        with self.assertRaises(VersionMismatch):
            self.c.set("k", 3, if_version=first)
        third = self.c.set("k", 3, if_version=second)
        with self.assertRaises(VersionMismatch):
            self.c.delete("k", if_version=second)
        self.assertIs(self.c.delete("k", if_version=third), True)
        with self.assertRaises(VersionMismatch) as caught:
            self.c.set("k", 4, if_version=third)
        self.assertIsNone(caught.exception.current)
        vector = self.c.add_vector("k", [1.0], if_version=None)
        with self.assertRaises(VersionMismatch):
            self.c.add_vector("k", [2.0], if_version=None)
        self.c.add_vector("k", [2.0], if_version=vector)

    def test_if_absent_keeps_the_first(self) -> None:
        first = self.c.set("k", 1, if_absent=True)
        with self.assertRaises(AlreadyExists) as caught:
            self.c.set("k", 2, if_absent=True)
        self.assertEqual(caught.exception.current, first)
        self.c.set("k", 2, if_absent=False)
        self.assertEqual(self.c.get("k"), 2)

    def test_bulk_set_takes_pairs_mappings_and_generators(self) -> None:
        written = self.c.bulk_set([("a", 1), ["b", [2]], ("a", "again")])
        self.assertEqual(written.count, 3)
        self.assertEqual(self.c.get_entry("a"), Entry("a", True, "again", written.version))
        self.assertEqual(self.c.bulk_set({"c": 3}).count, 1)
        self.assertEqual(self.c.bulk_set((f"n:{n}", n) for n in range(5)).count, 5)
        self.assertEqual(self.c.bulk_set([]), BulkWritten(0, None))
        self.assertEqual(self.c.count(), 8)

    def test_bulk_get_keeps_the_order_and_bulk_delete_counts(self) -> None:
        version = self.c.bulk_set({"a": 1, "b": None}).version
        entries = [
            Entry("b", True, None, version),
            Entry("nobody", False, None, None),
            Entry("a", True, 1, version),
        ]
        self.assertEqual(self.c.bulk_get(["b", "nobody", "a"]), entries)
        self.assertEqual(self.c.bulk_get(iter(["a"]), consistency="local"), entries[2:])
        self.assertEqual(self.c.bulk_delete(key for key in ("a", "b", "nobody")), 2)

    def test_search_by_value_finds_the_same_data(self) -> None:
        self.c.bulk_set({"p2": {"size": 1.0, "n": [1]}, "p1": {"n": [1], "size": 1}, "p3": {"size": 1}})
        self.assertEqual(self.c.search_by_value({"size": 1, "n": [1]}), ["p1", "p2"])
        self.assertEqual(self.c.search_by_value(None), [])

    def test_searches_follow_every_page(self) -> None:
        keys = [f"k{n:04}" for n in range(2500)]
        self.c.bulk_set((key, "some words") for key in keys)
        self.assertEqual(self.c.search_by_value("some words"), keys)
        self.assertEqual(self.c.search_by_value("some words", limit=1500), keys[:1500])
        self.assertEqual(self.c.search_text("words"), keys)
        self.assertEqual(self.c.search_text("words", limit=1001), keys[:1001])
        self.assertEqual(len(self.c.search_text_scored("words")), 2500)
        page = self.c.search_by_value_page("some words")
        self.assertEqual((len(page.items), page.total), (1000, 2500))
        page = self.c.search_by_value_page("some words", limit=2, after=page.next)
        self.assertEqual(page.items, keys[1000:1002])

    def test_searches_keep_to_a_prefix_and_say_what_any_word_would_find(self) -> None:
        self.c.bulk_set({"a:1": "red shoe", "a:2": "red", "b:1": "red shoe", "b:2": 1})
        self.assertEqual(self.c.search_text("red", prefix="a:"), ["a:2", "a:1"])
        self.assertEqual([key for key, _ in self.c.search_text_scored("shoe", prefix="b:")], ["b:1"])
        self.assertEqual(self.c.search_by_value("red shoe", prefix="b:"), ["b:1"])
        page = self.c.search_by_value_page("red shoe", prefix="a:")
        self.assertEqual((page.items, page.total, page.total_any), (["a:1"], 1, None))
        page = self.c.search_text_page("red nothing", prefix="a:")
        self.assertEqual((page.items, page.total, page.total_any), ([], 0, 2))

    def test_what_is_found_may_be_deleted_page_by_page(self) -> None:
        keys = [f"k{n:04}" for n in range(2500)]
        self.c.bulk_set((key, "word " * (1 + n % 7)) for n, key in enumerate(keys))
        page, deleted = self.c.search_text_page("word", limit=500), 0
        while True:
            deleted += self.c.bulk_delete(key for key, _ in page.items)
            if page.next is None:
                break
            page = self.c.search_text_page("word", limit=500, after=page.next)
        self.assertEqual((deleted, self.c.count()), (2500, 0))

    def test_search_text_gives_the_best_first(self) -> None:
        self.c.set("ann", "Software engineer passionate about databases")
        self.c.set("bob", {"likes": ["Databases", "databases", "Straße"]})
        self.assertEqual(self.c.search_text("DATABASES"), ["bob", "ann"])
        self.assertEqual(self.c.search_text("strasse engineer"), [])
        self.assertEqual(self.c.search_text("strasse engineer", match="any"), ["bob", "ann"])
        scored = self.c.search_text_scored("databases")
        self.assertEqual([key for key, _ in scored], ["bob", "ann"])
        self.assertGreater(scored[0][1], scored[1][1])
        page = self.c.search_text_page("strasse engineer", match="any", limit=1)
        self.assertEqual(([key for key, _ in page.items], page.total), (["bob"], 2))
        page = self.c.search_text_page("strasse engineer", match="any", limit=1, after=page.next)
        self.assertEqual(([key for key, _ in page.items], page.next), (["ann"], None))
        with self.assertRaises(BadRequest):
            self.c.search_text("x", match="some")

    def test_vectors_are_kept_and_searched(self) -> None:
        version = self.c.add_vector("img:1", (n for n in (1, 0)))
        self.c.add_vector("img:2", [0, 2.5])
        self.c.add_vector("doc:1", (3, 0))
        entry = self.c.get_vector("img:1")
        self.assertEqual((entry.found, entry.vector, entry.version), (True, [1.0, 0.0], version))
        self.assertEqual(self.c.get_entry("img:1"), Entry("img:1", False, None, version))
        self.assertFalse(self.c.get_vector("nobody").found)
        self.assertEqual(self.c.vector_search([10, 0], top_k=2), [("doc:1", 1.0), ("img:1", 1.0)])
        found = self.c.vector_search([10, 0], prefix="img:", consistency="local")
        self.assertEqual(found, [("img:1", 1.0), ("img:2", 0.0)])
        with self.assertRaises(DimensionMismatch) as caught:
            self.c.vector_search([1, 2, 3])
        self.assertEqual(caught.exception.lengths, [2])
        with self.assertRaises(BadVector):
            self.c.add_vector("img:3", [0, 0])

    def test_scan_goes_through_all_pages_in_order(self) -> None:
        keys = [f"n:{n:04}" for n in range(2500)]
        self.c.bulk_set((key, key) for key in keys)
        self.c.set("other", 1)
        self.assertEqual([item.key for item in self.c.scan(prefix="n:")], keys)
        self.assertEqual([item.value for item in self.c.scan(prefix="n:", page_size=999)], keys)
        backwards = self.c.scan(start=keys[1], end=keys[4], reverse=True)
        self.assertEqual([item.key for item in backwards], [keys[3], keys[2], keys[1]])
        limited = self.c.scan(prefix="n:", limit=7, page_size=3)
        self.assertEqual([item.key for item in limited], keys[:7])
        self.assertIsNone(next(self.c.scan(values=False)).value)
        page = self.c.scan_page(prefix="n:", limit=2)
        self.assertEqual(([item.key for item in page.items], page.total), (keys[:2], None))
        page = self.c.scan_page(prefix="n:", limit=2, after=page.next)
        self.assertEqual([item.key for item in page.items], keys[2:4])

    def test_scan_asks_for_a_page_when_it_is_needed(self) -> None:
        self.c.bulk_set({"a": 1, "b": 2, "c": 3})
        items = self.c.scan(page_size=1)
        self.assertEqual(next(items).key, "a")
        self.c.delete("b")
        self.assertEqual([item.key for item in items], ["c"])

    def test_scan_gives_vectors_when_asked(self) -> None:
        self.c.set("a", 1)
        self.c.add_vector("b", [1, 2])
        items = list(self.c.scan(vectors=True))
        self.assertEqual([(i.value, i.vector) for i in items], [(1, None), (None, [1.0, 2.0])])
        self.assertTrue(all(item.version for item in items))

    def test_count_counts(self) -> None:
        self.c.bulk_set({"a:1": 1, "a:2": 2, "b": 3})
        self.assertEqual(self.c.count(), 3)
        self.assertEqual(self.c.count(prefix="a:", consistency={"max_staleness_ms": 500}), 2)

    def test_stats_can_be_narrowed(self) -> None:
        self.assertIn("wal", self.c.stats())
        self.assertEqual(list(self.c.stats(section="keyspace")), ["keyspace"])
        with self.assertRaises(BadRequest):
            self.c.stats(section="everything")

    def test_cluster_and_snapshot_answer_on_one_node(self) -> None:
        cluster = self.c.cluster()
        self.assertEqual((cluster["tolerates"], cluster["members"][0]["node_id"]), (0, 1))
        self.assertGreater(self.c.snapshot()["bytes"], 0)

    def test_cluster_operations_say_that_they_need_a_cluster(self) -> None:
        calls: list[Call] = [
            lambda: self.c.promote(),
            lambda: self.c.promote(2, force=True),
            lambda: self.c.remove_member(2),
            lambda: self.c.conflicts(),
            lambda: self.c.conflicts(limit=5, after="x"),
            lambda: self.c.evict(2),
        ]
        for call in calls:
            with self.assertRaises(UnsupportedInMode):
                call()

    def test_a_member_s_own_number_is_taken(self) -> None:
        with self.assertRaises(BadRequest):
            self.c.add_member(1, "127.0.0.1", 9001)

    def test_fields_of_dynamo_mode_reach_the_node(self) -> None:
        calls: list[tuple[str, Call]] = [
            ("w", lambda: self.c.set("k", 1, w=1)),
            ("w", lambda: self.c.delete("k", w=1)),
            ("w", lambda: self.c.add_vector("k", [1], w=1)),
            ("w", lambda: self.c.bulk_set({"k": 1}, w=1)),
            ("w", lambda: self.c.bulk_delete(["k"], w="majority")),
            ("r", lambda: self.c.get("k", r=1)),
            ("r", lambda: self.c.get_entry("k", r="all")),
            ("after_version", lambda: self.c.get("k", after_version="1.0")),
            ("after_version", lambda: self.c.get_entry("k", after_version="1.0")),
            ("after_version", lambda: self.c.get_vector("k", after_version="1.0")),
            ("after_version", lambda: self.c.bulk_get(["k"], after_version="1.0")),
            ("after_version", lambda: self.c.search_by_value(1, after_version="1.0")),
            ("after_version", lambda: self.c.search_text("x", after_version="1.0")),
            ("after_version", lambda: self.c.search_text_scored("x", after_version="1.0")),
            ("after_version", lambda: self.c.vector_search([1], after_version="1.0")),
            ("after_version", lambda: list(self.c.scan(after_version="1.0"))),
            ("after_version", lambda: self.c.count(after_version="1.0")),
        ]
        for field, call in calls:
            with self.assertRaisesRegex(UnsupportedInMode, f"`{field}`"):
                call()

    def test_every_read_knows_consistency(self) -> None:
        level: Any = "eventual"
        calls: list[Call] = [
            lambda: self.c.get("k", consistency=level),
            lambda: self.c.get_entry("k", consistency=level),
            lambda: self.c.get_vector("k", consistency=level),
            lambda: self.c.bulk_get(["k"], consistency=level),
            lambda: self.c.search_by_value(1, consistency=level),
            lambda: self.c.search_by_value_page(1, consistency=level),
            lambda: self.c.search_text("x", consistency=level),
            lambda: self.c.search_text_scored("x", consistency=level),
            lambda: self.c.search_text_page("x", consistency=level),
            lambda: self.c.vector_search([1], consistency=level),
            lambda: list(self.c.scan(consistency=level)),
            lambda: self.c.scan_page(consistency=level),
            lambda: self.c.count(consistency=level),
        ]
        for call in calls:
            with self.assertRaisesRegex(BadRequest, "`consistency`"):
                call()
        level = "linearizable"
        self.c.add_vector("k", [1])
        for call in calls:
            call()

    def test_call_sends_any_operation(self) -> None:
        version = self.c.call("set", key="k", value=[1], if_version=None)["version"]
        reply = self.c.call("get", key="k", id=7)
        self.assertEqual(reply, {"id": 7, "found": True, "value": [1], "version": version})
        with self.assertRaises(UnknownOp):
            self.c.call("sett", key="k")

    def test_an_error_leaves_the_connection_as_it_was(self) -> None:
        with self.assertRaises(KeyTooLarge) as caught:
            self.c.set("k" * 5000, 1)
        error: DatastoreError = caught.exception
        self.assertEqual(
            (error.code, error.retryable, error.outcome), ("key_too_large", False, "not_applied")
        )
        self.assertTrue(error.message)
        before = self.c.stats(section="connections")["connections"]["accepted"]
        self.c.ping()
        self.assertEqual(self.c.stats(section="connections")["connections"]["accepted"], before)


class AsyncOperations(Operations):
    is_async = True


if __name__ == "__main__":
    unittest.main()
