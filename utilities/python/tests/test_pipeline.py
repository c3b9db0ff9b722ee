"""Pipelines: sent in one go, every call with its own result, in both clients."""

from __future__ import annotations

import unittest

from support import NodeCase

from datastore import AlreadyExists, DatastoreError, KeyTooLarge, UnsupportedInMode
from datastore.binding import Operation
from datastore.operations import Operations


class Pipelines(NodeCase):
    def test_ten_thousand_large_sets_do_not_block_each_other(self) -> None:
        # 50 MB there and, with the reads, 50 MB back: more than all buffers on the way hold.
        value = "v" * 5_000
        with self.c.pipeline() as pipeline:
            handles = [pipeline.set(f"k{n:05}", f"{n:05}{value}") for n in range(10_000)]
        versions = [handle.result() for handle in handles]
        self.assertEqual(len(versions), 10_000)
        with self.c.pipeline() as pipeline:
            reads = [pipeline.get(f"k{n:05}") for n in range(10_000)]
        for n, read in enumerate(reads):
            self.assertEqual(read.result()[:5], f"{n:05}")

    def test_a_call_sees_the_calls_before_it(self) -> None:
        with self.c.pipeline() as pipeline:
            pipeline.set("k", "first")
            pipeline.set("k", "second words")
            value = pipeline.get("k")
            found = pipeline.search_text_page("words")
        self.assertEqual(value.result(), "second words")
        self.assertEqual([key for key, _ in found.result().items], ["k"])

    def test_an_error_is_raised_by_its_own_handle_only(self) -> None:
        with self.c.pipeline() as pipeline:
            first = pipeline.set("k", 1, if_absent=True)
            second = pipeline.set("k", 2, if_absent=True)
            third = pipeline.set("x" * 5000, 1)
            fourth = pipeline.get("k")
        self.assertIsNone(first.exception())
        self.assertIsInstance(second.exception(), AlreadyExists)
        with self.assertRaises(KeyTooLarge):
            third.result()
        self.assertEqual(fourth.result(), 1)
        with self.assertRaises(AlreadyExists):
            pipeline.results()

    def test_results_come_in_the_order_of_the_calls(self) -> None:
        with self.c.pipeline() as pipeline:
            pipeline.bulk_set({"a": 1, "b": 2})
            pipeline.get("a"), pipeline.get("b"), pipeline.get("c", default="none")
            pipeline.delete("a"), pipeline.count(), pipeline.ping()
        self.assertEqual(pipeline.results()[1:], [1, 2, "none", True, 1, True])

    def test_wrong_arguments_are_told_when_they_are_queued(self) -> None:
        with self.c.pipeline() as pipeline:
            kept = pipeline.set("k", 1)
            with self.assertRaises(ValueError):
                pipeline.set("k", float("nan"))
        self.assertTrue(kept.result())
        self.assertEqual(len(pipeline.results()), 1)

    def test_a_block_that_fails_sends_nothing(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            with self.c.pipeline() as pipeline:
                handle = pipeline.set("k", 1)
                self.assertFalse(handle.done())
                raise ZeroDivisionError
        self.assertIsNone(self.c.get("k"))
        with self.assertRaises(RuntimeError):
            handle.result()
        with self.assertRaises(RuntimeError):
            handle.exception()

    def test_an_empty_pipeline_needs_no_node(self) -> None:
        with self.client(1).pipeline() as pipeline:
            pass
        self.assertEqual(pipeline.results(), [])

    def test_every_operation_of_the_node_is_there(self) -> None:
        with self.assertRaises(DatastoreError) as caught:
            self.c.call("no such operation")
        names = caught.exception.message.split("; there are ")[1].split(", ")
        self.assertGreater(len(names), 20)
        bound = {name for name, kind in vars(Operations).items() if isinstance(kind, Operation)}
        paged = {"search_by_value", "search_text", "scan"}
        for name in names:
            self.assertTrue(callable(getattr(self.c, name)))
            self.assertIn(f"{name}_page" if name in paged else name, bound)

    def test_every_operation_can_be_queued(self) -> None:
        with self.c.pipeline() as pipeline:
            pipeline.ping(), pipeline.hello(), pipeline.call("ping"), pipeline.set("k", "word")
            pipeline.get("k"), pipeline.get_entry("k"), pipeline.bulk_set({"b": 1})
            pipeline.bulk_get(["b"]), pipeline.bulk_delete(["b"]), pipeline.add_vector("k", [1])
            pipeline.get_vector("k"), pipeline.vector_search([1]), pipeline.search_by_value_page("word")
            pipeline.search_text_page("word"), pipeline.scan_page(), pipeline.count()
            pipeline.stats(), pipeline.cluster(), pipeline.snapshot(), pipeline.delete("k")
        self.assertEqual(len(pipeline.results()), 20)
        with self.c.pipeline() as pipeline:
            handles = [
                pipeline.promote(),
                pipeline.remove_member(2),
                pipeline.conflicts(),
                pipeline.evict(2),
            ]
        for handle in handles:
            self.assertIsInstance(handle.exception(), UnsupportedInMode)


class BlockingPipelines(Pipelines):
    def test_a_pipeline_can_be_sent_in_parts(self) -> None:
        pipeline = self.c.pipeline()
        first = pipeline.set("k", 1)
        pipeline.send()
        self.assertTrue(first.done())
        second = pipeline.get("k")
        pipeline.send()
        self.assertEqual(pipeline.results(), [first.result(), second.result()])


class AsyncPipelines(Pipelines):
    is_async = True


# Its tests are run by the two kinds.
del Pipelines

if __name__ == "__main__":
    unittest.main()
