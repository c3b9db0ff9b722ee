"""What a call says when its connection fails, in both clients."""

from __future__ import annotations

import socket
import unittest
from typing import Any, Callable
from unittest import mock

from support import PATIENCE_SECONDS, ClientCase, Node, Peer, Script

from datastore import (
    BadReply,
    ClientTimeout,
    ConnectionLost,
    DatastoreError,
    NotConnected,
    TooManyConnections,
)


def dies(peer: Peer) -> None:
    """Reads a request and closes."""
    peer.request()


def answers_ping(peer: Peer) -> None:
    """A good server, for one request."""
    assert peer.request()["op"] == "ping"
    peer.reply(pong=True)


def says(data: bytes) -> Script:
    """Reads a request and answers it with these bytes."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)

    return script


class Failures(ClientCase):
    def assert_fails(
        self, kind: type[DatastoreError], outcome: str, retryable: bool, call: Callable[[], object]
    ) -> DatastoreError:
        with self.assertRaises(kind) as caught:
            call()
        error = caught.exception
        self.assertEqual((error.outcome, error.retryable), (outcome, retryable), str(error))
        return error

    def test_a_write_whose_connection_is_lost_is_unknown_and_not_sent_again(self) -> None:
        # A second request would find nobody, and fail with another error.
        server = self.server(dies)
        client = self.client(server.port)
        error = self.assert_fails(ConnectionLost, "unknown", False, lambda: client.set("k", 1))
        self.assertIn(f"127.0.0.1:{server.port}", str(error))

    def test_a_read_whose_connection_is_lost_is_sent_once_more(self) -> None:
        client = self.client(self.server(dies, answers_ping).port)
        self.assertIs(client.ping(), True)

    def test_a_read_that_is_lost_twice_was_not_applied(self) -> None:
        client = self.client(self.server(dies, dies).port)
        self.assert_fails(ConnectionLost, "not_applied", True, client.ping)

    def test_an_operation_that_the_client_does_not_know_counts_as_a_write(self) -> None:
        client = self.client(self.server(dies).port)
        self.assert_fails(ConnectionLost, "unknown", False, lambda: client.call("new", key="k"))

    def test_operations_on_the_cluster_count_as_writes(self) -> None:
        calls: list[Callable[[Any], object]] = [
            lambda client: client.promote(),
            lambda client: client.add_member(2, "h", 1),
            lambda client: client.remove_member(2),
            lambda client: client.snapshot(),
            lambda client: client.evict(2),
        ]
        client = self.client(self.server(*[dies for _ in calls]).port)
        for call in calls:
            self.assert_fails(ConnectionLost, "unknown", False, lambda: call(client))

    def test_half_a_reply_is_a_lost_connection(self) -> None:
        half = says(b'{"ok":true,"vers')
        client = self.client(self.server(half, half, answers_ping).port)
        self.assert_fails(ConnectionLost, "unknown", False, lambda: client.set("k", 1))
        self.assertIs(client.ping(), True)

    def test_a_write_on_a_connection_that_ended_while_idle_goes_over_a_new_one(self) -> None:
        def takes_a_write(peer: Peer) -> None:
            peer.request()
            peer.reply(version="1.0")

        server = self.server(answers_ping, takes_a_write)
        client = self.client(server.port)
        client.ping()
        self.assertTrue(server.closed[0].wait(PATIENCE_SECONDS))
        self.assertEqual(client.set("k", 1), "1.0")

    def test_garbage_is_a_bad_reply_and_ends_the_connection(self) -> None:
        garbage = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"[]\n",
            b"{}\n",
            b"\xff\xfe\n",
            b"[" * 100_000 + b"\n",
            b'{"ok":1}\n',
            b'{"ok":false}\n',
            b'{"ok":false,"error":{"code":"timeout"}}\n',
            b'{"ok":true}\n',
            b'{"ok":true,"version":7}\n',
        ]
        client = self.client(self.server(*[says(line) for line in garbage], answers_ping).port)
        for line in garbage:
            with self.subTest(line[:40]):
                self.assert_fails(BadReply, "unknown", False, lambda: client.set("k", 1))
        self.assertIs(client.ping(), True)

    def test_a_read_with_a_bad_reply_was_not_applied(self) -> None:
        client = self.client(self.server(says(b"?\n")).port)
        self.assert_fails(BadReply, "not_applied", False, client.ping)

    def test_a_line_longer_than_any_reply_is_a_bad_reply(self) -> None:
        def endless(peer: Peer) -> None:
            peer.request()
            try:
                while True:
                    peer.send(b"x" * 65536)
            except OSError:
                pass

        client = self.client(self.server(endless).port)
        error = self.assert_fails(BadReply, "unknown", False, lambda: client.set("k", 1))
        self.assertIn("a line of more than", error.message)

    def test_no_reply_in_time_ends_the_connection(self) -> None:
        def is_silent(peer: Peer) -> None:
            peer.request()
            self.assertEqual(peer.lines.readline(), b"")  # until the client closes

        server = self.server(is_silent, is_silent, answers_ping)
        client = self.client(server.port, timeout=0.05)
        self.assert_fails(ClientTimeout, "unknown", False, lambda: client.set("k", 1))
        error = self.assert_fails(ClientTimeout, "not_applied", True, lambda: client.get("k"))
        self.assertIn(f"127.0.0.1:{server.port}", error.message)
        client = self.client(server.port)
        self.assertIs(client.ping(), True)

    def test_without_a_server_nothing_was_sent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        client = self.client(port)
        for call in (lambda: client.set("k", 1), client.ping):
            error = self.assert_fails(NotConnected, "not_applied", True, call)
            self.assertIn(f"127.0.0.1:{port}", error.message)

    def test_a_host_without_an_address_is_not_connected(self) -> None:
        client = self.client(9000, host="no..such.host")
        self.assert_fails(NotConnected, "not_applied", True, client.ping)

    def test_an_error_of_a_newer_node_is_a_plain_datastore_error(self) -> None:
        line = b'{"ok":false,"error":{"code":"new","message":"m","retryable":true,"outcome":"later"}}\n'
        client = self.client(self.server(says(line)).port)
        error = self.assert_fails(DatastoreError, "unknown", True, client.ping)
        self.assertIs(type(error), DatastoreError)
        self.assertEqual((error.code, error.message), ("new", "m"))

    def test_a_pipeline_keeps_what_was_answered_before_the_end(self) -> None:
        def answers_two(peer: Peer) -> None:
            for version in ("1", "2"):
                peer.request()
                peer.reply(version=version)
            peer.request(), peer.request()

        client = self.client(self.server(answers_two).port)
        with client.pipeline() as pipeline:
            writes = [pipeline.set("k", n) for n in range(3)]
            read = pipeline.get("k")
        self.assertEqual([write.result() for write in writes[:2]], ["1", "2"])
        self.assert_fails(ConnectionLost, "unknown", False, writes[2].result)
        # Not sent again: the write before it may still come.
        self.assert_fails(ConnectionLost, "not_applied", True, read.result)

    def test_the_rest_of_a_pipeline_is_sent_again_when_it_only_reads(self) -> None:
        def answers_one(peer: Peer) -> None:
            peer.request()
            peer.reply(version="1")
            peer.request(), peer.request()

        def goes_on(peer: Peer) -> None:
            for expected in ("a", "b"):
                self.assertEqual(peer.request()["key"], expected)
                peer.reply(found=True, value=expected, version="1")

        client = self.client(self.server(answers_one, goes_on).port)
        with client.pipeline() as pipeline:
            pipeline.set("k", 1), pipeline.get("a"), pipeline.get("b")
        self.assertEqual(pipeline.results(), ["1", "a", "b"])

    def test_a_bad_reply_ends_a_pipeline(self) -> None:
        client = self.client(self.server(says(b'{"ok":true,"version":"1"}\n?\n')).port)
        with client.pipeline() as pipeline:
            first, second, third = pipeline.set("k", 1), pipeline.set("k", 2), pipeline.set("k", 3)
        self.assertEqual(first.result(), "1")
        self.assert_fails(BadReply, "unknown", False, second.result)
        self.assert_fails(BadReply, "unknown", False, third.result)

    def test_a_node_that_is_killed_and_started_again_is_found_again(self) -> None:
        node = Node()
        self.addCleanup(node.remove)
        client = self.client(node.port)
        version = client.set("k", "before")
        node.kill()
        self.assert_fails(NotConnected, "not_applied", True, lambda: client.set("k", "between"))
        node.start()
        self.assertEqual(client.get_entry("k").version, version)
        node.kill()
        node.start()
        self.assertNotEqual(client.set("k", "after"), version)
        self.assertEqual(client.get("k"), "after")

    def test_a_node_that_turns_a_connection_away_says_why(self) -> None:
        node = Node("--max-connections", "1")
        self.addCleanup(node.remove)
        first, second = self.client(node.port), self.client(node.port)
        while not answers(first):  # until the one that awaited the start is gone
            pass
        for _ in range(20):
            error = self.assert_fails(TooManyConnections, "not_applied", True, second.ping)
            self.assertEqual(error.code, "too_many_connections")
        with second.pipeline() as pipeline:
            handles = [pipeline.set("k", 1), pipeline.set("k", 2)]
        for handle in handles:
            self.assert_fails(TooManyConnections, "not_applied", True, handle.result)
        first.close()
        while not answers(second):
            pass

    def test_closing_is_not_for_good(self) -> None:
        client = self.client(self.server(answers_ping, answers_ping).port)
        client.ping()
        client.close()
        client.close()
        self.assertIs(client.ping(), True)


def answers(client: Any) -> bool:
    """Whether the node takes the connection."""
    try:
        return bool(client.ping())
    except TooManyConnections:
        return False


class AsyncFailures(Failures):
    is_async = True


class BlockingOnly(ClientCase):
    def test_what_was_not_handed_to_the_socket_is_not_applied(self) -> None:
        client = self.client(self.server(dies).port)
        with client.pipeline() as pipeline:
            # More than the sockets' buffers hold.
            writes = [pipeline.set("k", "x" * 1_000_000) for _ in range(64)]
        self.assertIsInstance(writes[0].exception(), ConnectionLost)
        self.assertEqual(writes[0].exception().outcome, "unknown")
        self.assertIsInstance(writes[-1].exception(), NotConnected)
        self.assertEqual(writes[-1].exception().outcome, "not_applied")

    def test_an_interrupted_call_leaves_no_reply_for_the_next_one(self) -> None:
        def answers_late(peer: Peer) -> None:
            peer.request()
            self.assertEqual(peer.lines.readline(), b"")

        client = self.client(self.server(answers_late, answers_ping).port)
        interrupt = mock.patch("datastore.connection.Connection._receive", side_effect=KeyboardInterrupt)
        readable = mock.patch("datastore.connection.selectors.DefaultSelector.select", autospec=True)
        with interrupt, readable as select, self.assertRaises(KeyboardInterrupt):
            select.return_value = [(None, 1)]
            client.get("k")
        self.assertIs(client.ping(), True)


if __name__ == "__main__":
    unittest.main()
