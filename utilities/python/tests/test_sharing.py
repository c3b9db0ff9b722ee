"""One client for several threads, and for several tasks."""

from __future__ import annotations

import asyncio
import threading
import unittest

from support import PATIENCE_SECONDS, Node, NodeCase, Peer, Server

from datastore import (
    AlreadyExists,
    AsyncDatastoreConnector,
    ClientTimeout,
    ConnectionLost,
    DatastoreConnector,
    NotConnected,
)


class Threads(NodeCase):
    def test_threads_share_a_client_and_get_their_own_replies(self) -> None:
        client = DatastoreConnector(port=self.node.port, timeout=PATIENCE_SECONDS)
        failures: list[BaseException] = []

        def work(name: str) -> None:
            try:
                for n in range(100):
                    client.set(name, f"{name} {n}")
                    assert client.get(name) == f"{name} {n}"
                    with client.pipeline() as pipeline:
                        pipeline.set(f"{name}:p", n), pipeline.get(f"{name}:p")
                    assert pipeline.results()[1] == n
            except BaseException as error:
                failures.append(error)

        before = client.stats(section="connections")["connections"]["accepted"]
        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        self.assertEqual(failures, [])
        self.assertEqual(client.stats(section="connections")["connections"]["accepted"], before)
        client.close()


class Tasks(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        # Its debugging makes a thousand tasks slow, and reports that they are.
        asyncio.get_running_loop().set_debug(False)

    def server(self, *scripts: object) -> Server:
        server = Server(*scripts)  # type: ignore[arg-type]
        self.addCleanup(server.wait)
        return server

    async def test_tasks_share_a_connection_and_get_their_own_replies(self) -> None:
        node = Node()
        self.addCleanup(node.remove)
        async with AsyncDatastoreConnector(port=node.port, timeout=PATIENCE_SECONDS) as client:
            await asyncio.gather(*[client.set(f"k{n}", n) for n in range(1000)])
            values = await asyncio.gather(*[client.get(f"k{n}") for n in range(1000)])
            self.assertEqual(values, list(range(1000)))
            found = await asyncio.gather(
                client.set("k0", 1, if_absent=True), client.count(), return_exceptions=True
            )
            self.assertIsInstance(found[0], AlreadyExists)
            self.assertEqual(found[1], 1000)
            # One for the wait for the start, one for all tasks.
            self.assertEqual((await client.stats())["connections"]["accepted"], 2)

    async def test_calls_are_written_before_the_replies_of_earlier_ones_are_there(self) -> None:
        def answers_when_all_are_there(peer: Peer) -> None:
            requests = [peer.request() for _ in range(3)]
            for request in requests:
                peer.reply(found=True, value=request["key"], version="1")

        server = self.server(answers_when_all_are_there)
        async with AsyncDatastoreConnector(port=server.port) as client:
            values = await asyncio.gather(*[client.get(key) for key in "abc"])
        self.assertEqual(values, ["a", "b", "c"])

    async def test_a_cancelled_call_does_not_put_the_others_out_of_step(self) -> None:
        arrived = threading.Event()

        def waits(peer: Peer) -> None:
            requests = [peer.request() for _ in range(3)]
            arrived.set()
            assert server.released.wait(PATIENCE_SECONDS)
            requests.append(peer.request())
            for request in requests:
                peer.reply(found=True, value=request["key"], version="1")

        server = self.server(waits)
        async with AsyncDatastoreConnector(port=server.port) as client:
            first, second, third = [asyncio.create_task(client.get(key)) for key in "abc"]
            await asyncio.to_thread(arrived.wait, PATIENCE_SECONDS)
            second.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await second
            fourth = asyncio.create_task(client.get("d"))
            server.released.set()
            self.assertEqual([await first, await third, await fourth], ["a", "c", "d"])

    async def test_a_call_cancelled_while_connecting_leaves_the_others_their_connection(self) -> None:
        node = Node()
        self.addCleanup(node.remove)
        async with AsyncDatastoreConnector(port=node.port) as client:
            first, second = [asyncio.create_task(client.set("k", n)) for n in range(2)]
            await asyncio.sleep(0)
            first.cancel()
            self.assertTrue(await second)
            self.assertTrue(first.cancelled())
            self.assertEqual(await client.get("k"), 1)

    async def test_a_timeout_ends_every_call_on_the_connection(self) -> None:
        def is_silent(peer: Peer) -> None:
            while peer.lines.readline():
                pass

        server = self.server(is_silent)
        async with AsyncDatastoreConnector(port=server.port, timeout=0.1) as client:
            calls = [client.set("k", 1), client.get("k"), client.set("k", 2)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
        self.assertEqual([type(error) for error in errors], [ClientTimeout] * 3)
        outcomes = [getattr(error, "outcome", None) for error in errors]
        self.assertEqual(outcomes, ["unknown", "not_applied", "unknown"])

    async def test_reads_of_several_tasks_go_on_over_one_new_connection(self) -> None:
        def reads_three(peer: Peer) -> None:
            for _ in range(3):
                peer.request()

        def answers_two(peer: Peer) -> None:
            for request in [peer.request() for _ in range(2)]:
                peer.reply(found=True, value=request["key"], version="1")

        server = self.server(reads_three, answers_two)
        async with AsyncDatastoreConnector(port=server.port) as client:
            calls = [client.get("a"), client.set("k", 1), client.get("b")]
            a, lost, b = await asyncio.gather(*calls, return_exceptions=True)
        self.assertEqual((a, b), ("a", "b"))
        self.assertIsInstance(lost, ConnectionLost)

    async def test_closing_ends_the_calls_under_way(self) -> None:
        arrived = threading.Event()

        def is_silent(peer: Peer) -> None:
            peer.request()
            arrived.set()
            self.assertEqual(peer.lines.readline(), b"")

        server = self.server(is_silent)
        client = AsyncDatastoreConnector(port=server.port)
        call = asyncio.create_task(client.set("k", 1))
        await asyncio.to_thread(arrived.wait, PATIENCE_SECONDS)
        await client.close()
        with self.assertRaises(ConnectionLost) as caught:
            await call
        self.assertEqual(caught.exception.outcome, "unknown")

    async def test_without_a_node_every_task_is_told(self) -> None:
        client = AsyncDatastoreConnector(port=1)
        calls = [client.ping(), client.ping()]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        self.assertEqual([type(error) for error in errors], [NotConnected] * 2)


if __name__ == "__main__":
    unittest.main()
