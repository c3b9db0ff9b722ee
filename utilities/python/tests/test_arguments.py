"""Wrong arguments are refused before anything is sent: there is no node in these tests."""

from __future__ import annotations

import copy
import pickle
import re
import unittest
from pathlib import Path
from typing import Any, Callable

from datastore import DatastoreConnector, Overloaded, VersionMismatch, errors
from datastore.errors import ERRORS, DatastoreError, error_of
from datastore.protocol import LineBuffer

PROTOCOL_PAGE = Path(__file__).resolve().parents[3] / "docs" / "PROTOCOL.md"
Call = Callable[[Any], object]


class Arguments(unittest.TestCase):
    # Nobody listens on port 1: what is sent after all fails with NotConnected.
    client: Any = DatastoreConnector(port=1)

    def assert_refused(self, kind: type, calls: list[Call]) -> None:
        for number, call in enumerate(calls):
            with self.subTest(number), self.assertRaises(kind):
                call(self.client)

    def test_what_json_has_no_number_for_is_a_value_error(self) -> None:
        calls: list[Call] = [
            lambda client: client.set("k", float("nan")),
            lambda client: client.set("k", [{"a": float("inf")}]),
            lambda client: client.bulk_set({"k": float("-inf")}),
            lambda client: client.add_vector("k", [1, float("nan")]),
            lambda client: client.vector_search([float("inf")]),
            lambda client: client.search_by_value(float("nan")),
            lambda client: client.call("set", key="k", value=float("nan")),
        ]
        self.assert_refused(ValueError, calls)

    def test_lone_surrogates_are_a_value_error(self) -> None:
        calls: list[Call] = [
            lambda client: client.set("\ud800", 1),
            lambda client: client.set("k", "a\udc00b"),
            lambda client: client.set("k", {"\udfff": 1}),
            lambda client: client.get("\ud83d\ude00"),  # a pair that was not put together
            lambda client: client.search_text("\ud800"),
            lambda client: list(client.scan(prefix="\ud800")),
        ]
        self.assert_refused(ValueError, calls)
        with self.assertRaisesRegex(ValueError, r"lone surrogate '\\ud800'"):
            self.client.set("k", "\ud800")

    def test_what_is_too_deep_or_goes_in_a_circle_is_a_value_error(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        deep: list[Any] = []
        for _ in range(200_000):
            deep = [deep]
        self.assert_refused(ValueError, [lambda c: c.set("k", circle), lambda c: c.set("k", deep)])
        while deep:  # freed level by level
            deep = deep.pop()

    def test_what_json_has_no_form_for_is_a_type_error(self) -> None:
        calls: list[Call] = [
            lambda client: client.set("k", {1, 2}),
            lambda client: client.set("k", b"bytes"),
            lambda client: client.set("k", object()),
            lambda client: client.set("k", {(1, 2): 3}),
            lambda client: client.search_by_value({1}),
            lambda client: client.call("x", field=object()),
            lambda client: client.call(5),
            lambda client: client.call("x", op="y"),
        ]
        self.assert_refused(TypeError, calls)

    def test_keys_and_queries_are_strings(self) -> None:
        for wrong in (None, 1, b"k", ["k"]):
            calls: list[Call] = [
                lambda client: client.set(wrong, 1),
                lambda client: client.get(wrong),
                lambda client: client.get_entry(wrong),
                lambda client: client.delete(wrong),
                lambda client: client.add_vector(wrong, [1]),
                lambda client: client.get_vector(wrong),
                lambda client: client.bulk_get([wrong]),
                lambda client: client.bulk_delete([wrong]),
                lambda client: client.bulk_set([(wrong, 1)]),
                lambda client: client.search_text(wrong),
            ]
            self.assert_refused(TypeError, calls)

    def test_one_string_is_not_several(self) -> None:
        calls: list[Call] = [
            lambda client: client.bulk_get("keys"),
            lambda client: client.bulk_delete("keys"),
            lambda client: client.bulk_set(["ab", "cd"]),
            lambda client: client.bulk_set([("a", 1, 2)]),
            lambda client: client.add_vector("k", "123"),
            lambda client: client.add_vector("k", ["1"]),
            lambda client: client.add_vector("k", [True]),
        ]
        self.assert_refused(TypeError, calls)

    def test_a_lazy_scan_refuses_at_the_call(self) -> None:
        with self.assertRaises(TypeError):
            self.client.scan(prefix=object())

    def test_connection_settings_are_checked(self) -> None:
        wrong: list[tuple[type, Callable[[], object]]] = [
            (ValueError, lambda: DatastoreConnector("")),
            (ValueError, lambda: DatastoreConnector(port=0)),
            (ValueError, lambda: DatastoreConnector(port=65536)),
            (TypeError, lambda: DatastoreConnector(port="9000")),  # type: ignore[arg-type]
            (ValueError, lambda: DatastoreConnector(timeout=0)),
            (ValueError, lambda: DatastoreConnector(connect_timeout=float("nan"))),
        ]
        for kind, call in wrong:
            with self.assertRaises(kind):
                call()


class Errors(unittest.TestCase):
    def test_there_is_a_class_for_every_code_of_the_protocol(self) -> None:
        own = {"not_connected", "connection_lost", "client_timeout", "bad_reply"}
        table = PROTOCOL_PAGE.read_text(encoding="utf-8").split("## Error codes")[1]
        codes = set(re.findall(r"^\| `(\w+)` \| (?:yes|no) \|", table, re.MULTILINE))
        self.assertGreater(len(codes), 25)
        self.assertEqual(set(ERRORS), codes | own)

    def test_a_class_has_its_codes_name_and_is_exported(self) -> None:
        for code, kind in ERRORS.items():
            self.assertEqual(kind.__name__, code.title().replace("_", ""))
            self.assertTrue(issubclass(kind, DatastoreError))
            self.assertIn(kind.__name__, errors.__all__)

    def test_what_a_code_adds_is_typed_and_may_be_missing(self) -> None:
        details: list[tuple[str, str, Any, Any]] = [
            ("version_mismatch", "current", "1.0", None),
            ("already_exists", "current", "1.0", None),
            ("overloaded", "retry_after_ms", 100, 0),
            ("index_not_ready", "progress", 0.5, 0.0),
            ("index_not_ready", "expected_ms", 700, None),
            ("dimension_mismatch", "lengths", [2, 3], []),
            ("not_leader", "leader", {"host": "h", "port": 1}, None),
            ("replication_timeout", "acknowledged", 2, 0),
            ("out_of_memory", "held_by", [2], []),
        ]
        for code, name, value, missing in details:
            self.assertEqual(getattr(error_of({"code": code, name: value}), name), value)
            self.assertEqual(getattr(error_of({"code": code}), name), missing)

    def test_errors_can_be_copied_and_pickled(self) -> None:
        error = error_of({"code": "overloaded", "message": "m", "outcome": "not_applied", "retryable": True})
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            self.assertIsInstance(twin, Overloaded)
            self.assertEqual((str(twin), twin.retryable), ("overloaded: m (outcome: not_applied)", True))
        self.assertNotIsInstance(error, VersionMismatch)


class Lines(unittest.TestCase):
    def test_lines_are_cut_wherever_the_pieces_end(self) -> None:
        text = b"one\n\ntwo\nthree\nrest"
        for size in range(1, len(text)):
            lines = LineBuffer()
            found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
            self.assertEqual(found, [b"one", b"", b"two", b"three"])

    def test_a_line_without_an_end_is_refused(self) -> None:
        lines = LineBuffer(10)
        self.assertEqual(lines.feed(b"0123456789\n012345"), [b"0123456789"])
        lines.feed(b"6789")
        with self.assertRaises(ValueError):
            lines.feed(b"x")


if __name__ == "__main__":
    unittest.main()
