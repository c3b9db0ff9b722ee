"""Several nodes: the leader is found, and nothing is sent twice that may have happened."""

from __future__ import annotations

import asyncio
import socket
import threading
import unittest
from typing import Any, Callable, Optional

from support import PATIENCE_SECONDS, ClientCase, FakeNode

from datastore import (
    AsyncDatastoreConnector,
    ClientTimeout,
    ConnectionLost,
    DatastoreConnector,
    DatastoreError,
    NoLeader,
    NoQuorum,
    NotConnected,
    NotLeader,
)

Reply = dict[str, Any]
SHORT_PATIENCE = 0.2
"""Long enough for a few pauses."""


def taken(request: Any) -> Reply:
    """A good answer."""
    fields: Reply = {"version": "1.0", "found": True, "value": 1, "count": 1, "pong": True}
    return {"ok": True, **fields, "leader": request.get("node_id")}


def refused(code: str, **more: Any) -> Reply:
    """An error after which nothing has happened."""
    error = {"code": code, "message": "m", "retryable": True, "outcome": "not_applied"}
    return {"ok": False, "error": {**error, **more}}


def not_leader(port: Optional[int]) -> Reply:
    """`not_leader`, with the address of who is."""
    leader = None if port is None else {"node_id": 1, "host": "127.0.0.1", "port": port}
    return refused("not_leader", leader=leader)


def as_replica(request: Any, leader: Optional[int]) -> Reply:
    """What a replica says."""
    is_write = request["op"] in ("set", "promote")
    if is_write or request.get("consistency") == "linearizable":
        return not_leader(leader)
    return taken(request)


def in_turn(*replies: Reply) -> Callable[[int, Any], Reply]:
    """So many requests, whatever they are."""
    return lambda number, _: replies[number]


def nobody() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Cluster(ClientCase):
    def leader(self) -> FakeNode:
        return self.fake_node(lambda _, request: taken(request))

    def replica_of(self, port: Optional[int]) -> FakeNode:
        return self.fake_node(lambda _, request: as_replica(request, port))

    def client_of(self, *ports: int, patience: float = PATIENCE_SECONDS) -> Any:
        return self.client(host=[f"127.0.0.1:{port}" for port in ports], patience=patience)

    def test_a_write_goes_to_the_leader_that_a_replica_names_and_happens_once(self) -> None:
        leader = self.leader()
        replica = self.replica_of(leader.port)
        client = self.client_of(replica.port)
        self.assertEqual(client.set("k", 1), "1.0")
        self.assertEqual((replica.operations(), leader.operations()), (["set"], ["set"]))
        client.set("k", 2)
        client.get("k")
        client.get("k", consistency="linearizable")
        self.assertEqual((replica.operations(), leader.operations()), (["set"], ["set", "set", "get", "get"]))

    def test_what_is_about_one_node_stays_at_the_node_asked(self) -> None:
        leader = self.leader()
        replica = self.replica_of(leader.port)
        client = self.client_of(replica.port, leader.port)
        client.set("k", 1)
        client.get("k", consistency="local")
        client.count(consistency={"max_staleness_ms": 5})
        client.ping(), client.stats(), client.cluster()
        self.assertEqual(replica.operations(), ["set", "get", "count", "ping", "stats", "cluster"])
        with self.assertRaises(NotLeader):
            client.promote()  # the leader would promote itself
        self.assertEqual(client.promote(2)["leader"], 2)
        self.assertEqual(leader.operations(), ["set", "promote"])

    def test_while_nobody_leads_it_waits_and_finds_who_is_elected(self) -> None:
        codes = [refused(code) for code in ("no_leader", "no_quorum", "starting")]
        for nobody_leads in (not_leader(None), *codes):
            leader = self.leader()
            replica = self.fake_node(in_turn(*[nobody_leads] * 3, not_leader(leader.port)))
            self.client_of(replica.port).set("k", 1)
            self.assertEqual((len(replica.requests), len(leader.requests)), (4, 1))

    def test_a_node_that_starts_is_waited_for_whatever_it_is_asked(self) -> None:
        node = self.fake_node(in_turn(*[refused("starting", progress=0.5)] * 2, taken({}), refused("starting"), taken({})))
        client = self.client_of(node.port)
        client.get("k", consistency="local"), client.stats()
        self.assertEqual(node.operations(), ["get", "get", "get", "stats", "stats"])

    def test_where_one_node_knows_no_leader_the_others_are_asked(self) -> None:
        leader = self.leader()
        isolated = self.fake_node(lambda *_: refused("no_quorum"))
        client = self.client_of(isolated.port, leader.port)
        client.set("k", 1), client.set("k", 2)
        self.assertEqual((len(isolated.requests), len(leader.requests)), (1, 2))

    def test_two_nodes_that_name_each_other_are_not_asked_for_ever(self) -> None:
        one = self.fake_node(lambda *_: not_leader(other.port))
        other = self.fake_node(lambda *_: not_leader(one.port))
        with self.assertRaises(NotLeader):
            self.client_of(one.port, patience=SHORT_PATIENCE).set("k", 1)
        # Once a round each, and the rounds are 20, 40, 80, 160 … ms apart.
        for node in (one, other):
            self.assertTrue(2 <= len(node.requests) <= 8, len(node.requests))

    def test_an_address_where_nobody_is_is_passed_over(self) -> None:
        leader, gone = self.leader(), nobody()
        client = self.client_of(gone, leader.port)
        client.ping()
        # Neither writes nor what is about a node goes there again when it is back.
        back = self.fake_node(lambda _, request: taken(request), gone)
        client.set("k", 1), client.ping()
        self.assertEqual((leader.operations(), back.operations()), (["ping", "set", "ping"], []))
        with self.assertRaises(NotConnected) as caught:
            self.client_of(nobody(), nobody(), patience=float("inf")).set("k", 1)
        self.assertEqual(caught.exception.outcome, "not_applied")

    def test_a_leader_that_cannot_be_reached_is_looked_for_elsewhere(self) -> None:
        leader = self.leader()
        stale = self.replica_of(nobody())
        client = self.client_of(stale.port, leader.port)
        client.set("k", 1), client.set("k", 2)
        self.assertEqual((len(stale.requests), len(leader.requests)), (1, 2))

    def test_a_replica_that_names_the_dead_leader_is_asked_until_it_names_the_new_one(self) -> None:
        leader, gone = self.leader(), nobody()
        replica = self.fake_node(lambda number, _: not_leader(gone if number < 2 else leader.port))
        self.client_of(replica.port).set("k", 1)
        self.assertEqual((len(replica.requests), len(leader.requests)), (3, 1))

    def test_a_write_whose_connection_breaks_is_unknown_and_sent_nowhere_else(self) -> None:
        dying, bystander = self.fake_node(lambda *_: None), self.leader()
        replica = self.replica_of(dying.port)
        client = self.client_of(replica.port, bystander.port)
        with self.assertRaises(ConnectionLost) as caught:
            client.set("k", 1)
        self.assertEqual(caught.exception.outcome, "unknown")
        counts = (len(replica.requests), len(dying.requests), len(bystander.requests))
        self.assertEqual(counts, (1, 1, 0))

    def test_what_a_deposed_leader_may_have_done_is_not_sent_again(self) -> None:
        # The second is no answer of a sound node: the outcome counts, whatever the code.
        for code in ("leadership_lost", "no_quorum"):
            reply = refused(code, outcome="unknown")
            deposed, bystander = self.fake_node(in_turn(reply)), self.leader()
            with self.assertRaises(DatastoreError) as caught:
                self.client_of(deposed.port, bystander.port).set("k", 1)
            self.assertEqual((caught.exception.code, caught.exception.outcome), (code, "unknown"))
            self.assertEqual((len(deposed.requests), len(bystander.requests)), (1, 0))

    def test_at_the_end_of_patience_the_last_error_is_raised(self) -> None:
        replica = self.fake_node(lambda number, _: refused("no_leader" if number < 2 else "no_quorum"))
        with self.assertRaises(NoQuorum) as caught:
            self.client_of(replica.port, patience=SHORT_PATIENCE).set("k", 1)
        self.assertEqual((caught.exception.outcome, caught.exception.retryable), ("not_applied", True))
        leader = self.leader()
        with self.assertRaises(NotLeader) as told:
            self.client_of(self.replica_of(leader.port).port, patience=0).set("k", 1)
        self.assertEqual((told.exception.leader or {})["port"], leader.port)
        self.assertEqual(leader.requests, [])

    def test_a_pipeline_goes_on_where_the_leader_is_in_its_order(self) -> None:
        leader = self.leader()
        elsewhere = not_leader(leader.port)
        old = self.fake_node(lambda number, request: taken(request) if number < 3 else elsewhere)
        with self.client_of(old.port).pipeline() as pipeline:
            for number in range(200):
                pipeline.set("k", number)
        self.assertEqual(pipeline.results(), ["1.0"] * 200)
        self.assertEqual([request["value"] for request in leader.requests], list(range(3, 200)))
        self.assertEqual(len(old.requests), 200)

    def test_a_read_behind_a_write_in_a_pipeline_sees_it_at_the_leader(self) -> None:
        leader = self.leader()
        replica = self.replica_of(leader.port)
        with self.client_of(replica.port).pipeline() as pipeline:
            pipeline.get("before"), pipeline.set("k", 1), pipeline.get("k", consistency="local")
        pipeline.results()
        self.assertEqual(leader.operations(), ["set", "get"])

    def test_a_pipeline_that_only_reads_locally_stays(self) -> None:
        leader = self.leader()
        replica = self.replica_of(leader.port)
        client = self.client_of(replica.port)
        client.set("k", 1)
        with client.pipeline() as pipeline:
            pipeline.get("k", consistency="local"), pipeline.stats()
        self.assertEqual(replica.operations(), ["set", "get", "stats"])

    def test_leaders_without_an_address_are_none(self) -> None:
        for leader in ({"host": "h"}, {"host": "h", "port": 70_000}, {"host": 1, "port": 1}, "h:1"):
            odd = self.fake_node(lambda *_, leader=leader: refused("not_leader", leader=leader))
            with self.assertRaises(NotLeader):
                self.client_of(odd.port, patience=SHORT_PATIENCE).set("k", 1)


class AsyncCluster(Cluster):
    is_async = True

    def test_tasks_that_are_led_on_at_once_write_once_each(self) -> None:
        leader = self.leader()
        replica = self.replica_of(leader.port)

        async def write() -> None:
            async with AsyncDatastoreConnector(port=replica.port) as client:
                await asyncio.gather(*[client.set("k", number) for number in range(100)])

        asyncio.run(write())
        self.assertEqual(sorted(request["value"] for request in leader.requests), list(range(100)))


class Silence(ClientCase):
    """Nodes that are there for their system alone, and nodes that are only slow."""

    def leader(self) -> FakeNode:
        return self.fake_node(lambda _, request: taken(request))

    def falls_silent(self) -> tuple[FakeNode, threading.Event]:
        """It answers one request, and no other before the event is set."""
        wakes = threading.Event()

        def script(number: int, request: Any) -> Reply:
            if number > 0:
                wakes.wait(PATIENCE_SECONDS)
            return taken(request)

        node = self.fake_node(script)
        self.addCleanup(wakes.set)
        return node, wakes

    def client_of(self, *nodes: FakeNode, **options: Any) -> Any:
        return self.client(host=[f"127.0.0.1:{node.port}" for node in nodes], **options)

    def test_nothing_is_handed_to_a_node_that_only_seems_to_be_there(self) -> None:
        silent, leader = self.fake_node(lambda _, request: None, is_silent=True), self.leader()
        client = self.client_of(silent, leader)
        client.set("k", 1)
        client.get("k", consistency="local")
        client.ping()
        self.assertEqual(leader.operations(), ["set", "get", "ping"])
        self.assertEqual(silent.operations(), [])

    def test_a_node_that_falls_silent_is_left_and_reads_are_repeated_elsewhere(self) -> None:
        (silent, _), leader = self.falls_silent(), self.leader()
        client = self.client_of(silent, leader)
        client.get("k")
        self.assertEqual(client.get("k"), 1)
        self.assertEqual(leader.operations(), ["get"])
        client.set("k", 1)
        self.assertEqual(silent.operations()[:2], ["get", "get"])
        self.assertEqual(set(silent.operations()[2:]), {"ping"})

    def test_a_write_there_is_unknown_and_sent_nowhere_else(self) -> None:
        (silent, _), leader = self.falls_silent(), self.leader()
        client = self.client_of(silent, leader)
        client.set("k", 1)
        with self.assertRaises(ConnectionLost) as raised:
            client.set("k", 2)
        self.assertEqual(raised.exception.outcome, "unknown")
        self.assertEqual(leader.operations(), [])
        client.set("k", 3)
        self.assertEqual(leader.operations(), ["set"])

    def test_a_pipeline_of_reads_goes_elsewhere_as_a_whole(self) -> None:
        (silent, _), leader = self.falls_silent(), self.leader()
        client = self.client_of(silent, leader)
        client.get("k")
        with client.pipeline() as pipeline:
            handles = [pipeline.get("k") for _ in range(20)]
        self.assertEqual([handle.result() for handle in handles], [1] * 20)
        self.assertEqual(len(leader.operations()), 20)

    def test_a_replica_that_names_a_silent_leader_is_asked_until_it_names_another_one(self) -> None:
        (silent, _), leader = self.falls_silent(), self.leader()
        ports = [silent.port] * 4 + [leader.port]
        replica = self.fake_node(lambda number, _: not_leader(ports[min(number, 4)]))
        client = self.client_of(silent, replica)
        client.get("k", consistency="linearizable")
        client.get("k", consistency="linearizable")
        self.assertEqual(leader.operations(), ["get"])
        self.assertEqual(set(silent.operations()[2:]), {"ping"})

    def test_a_node_that_is_only_slow_is_waited_for(self) -> None:
        pings = threading.Semaphore(0)

        def script(_: int, request: Any) -> Reply:
            if request["op"] == "ping":
                pings.release()
            else:
                for _number in range(3):
                    pings.acquire(timeout=PATIENCE_SECONDS)
            return taken(request)

        slow, other = self.fake_node(script), self.leader()
        self.client_of(slow, other).set("k", 1)
        self.assertEqual(slow.operations(), ["set", "ping", "ping", "ping"])
        self.assertEqual(other.operations(), [])

    def test_one_that_answers_a_ping_is_asked_again(self) -> None:
        node, wakes = self.falls_silent()
        other = self.fake_node(lambda _, request: as_replica(request, None))
        client = self.client_of(node, other)
        client.get("k")
        client.get("k")
        self.assertEqual(other.operations(), ["get"])
        wakes.set()
        # The other one takes no writes and knows nobody who does.
        client.set("k", 1)
        self.assertIn("set", node.operations())

    def test_the_only_node_is_waited_for_and_no_call_outlives_its_time(self) -> None:
        silent, _ = self.falls_silent()
        client = self.client_of(silent, timeout=0.7, silence=0.1)
        client.get("k")
        with self.assertRaises(ClientTimeout):
            client.set("k", 1)
        self.assertEqual(silent.operations(), ["get", "set"])
        nobody_leads = self.fake_node(lambda _, request: refused("no_leader"))
        client = self.client_of(nobody_leads, timeout=0.3, patience=3_600)
        with self.assertRaises(NoLeader):
            client.set("k", 1)


class AsyncSilence(Silence):
    is_async = True

    def test_a_client_that_was_closed_asks_every_node_anew(self) -> None:
        (silent, wakes), leader = self.falls_silent(), self.leader()

        async def use() -> None:
            hosts = [f"127.0.0.1:{node.port}" for node in (silent, leader)]
            client = AsyncDatastoreConnector(hosts)
            await client.set("k", 1)
            with self.assertRaises(ConnectionLost):
                await client.set("k", 2)
            await client.close()
            wakes.set()
            self.assertFalse(client._nodes.given[0] in client._nodes.silent)
            await client.close()

        asyncio.run(use())

    def test_a_call_that_runs_out_of_time_ends_no_other_one(self) -> None:
        answers = threading.Event()
        self.addCleanup(answers.set)

        def script(_: int, request: Any) -> Reply:
            if request["key"] == "slow":
                answers.wait(PATIENCE_SECONDS)
            return taken(request)

        node = self.fake_node(script)

        async def use() -> None:
            async with AsyncDatastoreConnector(port=node.port, timeout=2.0) as client:
                await client.set("first", 0)
                first = asyncio.ensure_future(client.set("slow", 1))
                await asyncio.sleep(1.5)
                second = asyncio.ensure_future(client.set("second", 2))
                await asyncio.sleep(0.1)
                answers.set()
                self.assertEqual(await second, "1.0")
                await first

        asyncio.run(use())


class Addresses(unittest.TestCase):
    def test_hosts_have_a_port_or_take_the_common_one(self) -> None:
        several = ["a", "b:1", "::1", "[::1]", "[::1]:5"]
        client = DatastoreConnector(several, 7)
        shown = "['a:7', 'b:1', '[::1]:7', '[::1]:7', '[::1]:5']"
        self.assertEqual(repr(client), f"DatastoreConnector({shown})")
        self.assertEqual(repr(AsyncDatastoreConnector("a:1")), "AsyncDatastoreConnector('a', 1)")

    def test_wrong_ones_are_refused(self) -> None:
        wrong: list[Any] = [[], "", "a:", "a:b", ":1", "a:70000", ["a", ""], "a:-1", "a:٣"]
        for host in wrong:
            with self.subTest(host), self.assertRaises(ValueError):
                DatastoreConnector(host)
        odd: list[Any] = [5, [5], None, [None]]
        for host in odd:
            with self.subTest(host), self.assertRaises(TypeError):
                DatastoreConnector(host)
        for patience in (-1, float("nan")):
            with self.assertRaises(ValueError):
                DatastoreConnector(patience=patience)


if __name__ == "__main__":
    unittest.main()
