#!/usr/bin/env python3
"""Draws the memory of three nodes under mixed load: flat is right.

    cargo build --release
    python3 utilities/memory_curve.py [--mode leader|dynamo] [--minutes 120] [--rate 150]

Three nodes on loopback in a directory of their own. In dynamo mode each takes a third of
the requests, in leader mode the leader takes the writes and each node a third of the
reads. Half of all requests are writes: `set` of new and known keys with a text, a number
and, for some, a vector, `delete`, also of keys that are not there, rewrites of
20 hot keys; the others are `get`, `scan`, `search_text`, `search_by_value` and
`vector_search`. The number of keys is bounded, so memory must come to rest. One line a
minute: what the system says is resident, per node in MiB, and what the node explains of it.
The last lines compare the most of the last quarter with that of the third; the exit code is 1 if it has grown by more than
a quarter.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

KEYS = 20_000
# Small, so that many snapshots are made and many segments go while it runs.
SNAPSHOT_EVERY_BYTES = 16 * 2**20
# By how much the most of the last quarter may exceed that of the third one: the cache of newest entries fills for an
# hour at this rate, falls when a snapshot cuts the log, and fills again; the kernel makes huge pages of what was used.
GROWTH_MAX = 0.25
WORDS = [f"word{number}" for number in range(2_000)]


class Client:
    """Asks one node one request at a time."""

    def __init__(self, port):
        self.port = port
        self.stream = None

    def call(self, request):
        if self.stream is None:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self.stream = connection.makefile("rwb")
        self.stream.write(json.dumps(request).encode() + b"\n")
        self.stream.flush()
        line = self.stream.readline()
        if not line:
            raise ConnectionError(f"the node at port {self.port} closed the connection")
        return json.loads(line)


def leader_place(clients):
    """Where writes go, once somebody leads."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for client in clients:
            try:
                leader = client.call({"op": "cluster"}).get("leader")
            except OSError:
                client.stream = None
                continue
            if leader is not None:
                return leader["node_id"] - 1
        time.sleep(0.1)
    raise TimeoutError("nobody leads")


def wait_for_all(clients):
    """Waits until each node answers."""
    deadline = time.monotonic() + 60
    for client in clients:
        while not answers(client):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node at port {client.port} doesn't answer")
            time.sleep(0.1)


def answers(client):
    try:
        return client.call({"op": "count"})["ok"]
    except OSError:
        client.stream = None
        return False


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(binary, mode, directory):
    ports = free_ports(3)
    nodes = []
    for place, port in enumerate(ports):
        peers = [
            {"node_id": other + 1, "host": "127.0.0.1", "port": ports[other]} for other in range(3) if other != place
        ]
        arguments = ["--port", str(port), "--node-id", str(place + 1), "--mode", mode]
        arguments += ["--data-dir", os.path.join(directory, f"node{place + 1}"), "--peers", json.dumps(peers)]
        arguments += ["--snapshot-every-bytes", str(SNAPSHOT_EVERY_BYTES)]
        if mode == "leader":
            arguments += ["--role", "primary" if place == 0 else "secondary"]
        log = open(os.path.join(directory, f"node{place + 1}.log"), "wb")
        nodes.append(subprocess.Popen([binary, *arguments], stdout=log, stderr=log))
    return ports, nodes


def request_of(randomness):
    """A request, and whether it writes."""
    dice = randomness.random()
    key = f"key:{int(KEYS * randomness.random() ** 2)}"
    if dice < 0.34:
        words = " ".join(randomness.choices(WORDS, k=randomness.randrange(3, 40)))
        return {"op": "set", "key": key, "value": {"text": words, "number": randomness.randrange(1_000)}}, True
    if dice < 0.38:
        return {"op": "set", "key": f"hot:{randomness.randrange(20)}", "value": randomness.randrange(1_000_000)}, True
    if dice < 0.42:
        vector = [randomness.random() for _ in range(16)]
        return {"op": "add_vector", "key": f"key:{randomness.randrange(2_000)}", "vector": vector}, True
    if dice < 0.48:
        return {"op": "delete", "key": key}, True
    if dice < 0.50:
        return {"op": "delete", "key": f"never:{randomness.randrange(100_000)}"}, True
    if dice < 0.85:
        return {"op": "get", "key": key}, False
    if dice < 0.90:
        return {"op": "scan", "prefix": key[:6], "limit": 50}, False
    if dice < 0.94:
        return {"op": "search_text", "query": " ".join(randomness.choices(WORDS, k=2)), "limit": 10}, False
    if dice < 0.97:
        return {"op": "search_by_value", "value": randomness.randrange(1_000_000), "limit": 10}, False
    return {"op": "vector_search", "vector": [randomness.random() for _ in range(16)], "top_k": 5}, False


def resident_mib(process):
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def sample(minute, outcomes, clients, processes):
    row = []
    for client, process in zip(clients, processes):
        memory = client.call({"op": "stats", "section": "memory"})["memory"]
        explained = memory["explained_bytes"] / memory["resident_bytes"]
        row.append((resident_mib(process), memory["used_bytes"] / 2**20, explained))
    nodes = "   ".join(f"{resident:7.1f} {used:6.1f} {explained:4.0%}" for resident, used, explained in row)
    counts = " ".join(f"{name}={count}" for name, count in sorted(outcomes.items()))
    print(f"{minute:4d}   {nodes}   {counts}", flush=True)
    return [resident for resident, _, _ in row]


def load(arguments, ports, processes, randomness):
    clients = [Client(port) for port in ports]
    wait_for_all(clients)
    leader = leader_place(clients) if arguments.mode == "leader" else None
    outcomes, samples, asked = {}, [], 0
    begin = time.monotonic()
    print("minute, then of each node: resident MiB, entries and indexes MiB, explained; then replies so far")
    while len(samples) < arguments.minutes:
        request, writes = request_of(randomness)
        place = leader if writes and leader is not None else asked % 3
        reply = clients[place].call(request)
        outcome = "ok" if reply["ok"] else reply["error"]["code"]
        if outcome in ("not_leader", "no_leader"):
            leader = leader_place(clients)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        asked += 1
        elapsed = time.monotonic() - begin
        if elapsed >= 60 * (len(samples) + 1):
            samples.append(sample(len(samples) + 1, outcomes, clients, processes))
        time.sleep(max(0.0, asked / arguments.rate - elapsed))
    return samples


def verdict(samples):
    quarter, is_flat = max(1, len(samples) // 4), True
    for place in range(3):
        of_node = [row[place] for row in samples]
        third = max(of_node[2 * quarter : 3 * quarter] or of_node)
        last = max(of_node[-quarter:])
        print(f"node {place + 1}: at most {third:.1f} MiB in the third quarter, {last:.1f} in the last, {last / third - 1:+.1%}")
        is_flat = is_flat and last <= third * (1 + GROWTH_MAX)
    return is_flat


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/datastore-node")
    parser.add_argument("--mode", choices=["leader", "dynamo"], default="leader")
    parser.add_argument("--minutes", type=int, default=120, help="at least 1")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error("--minutes: at least 1")
    print(f"mode {arguments.mode}, {arguments.rate:.0f} requests a second, seed {arguments.seed}")
    directory = tempfile.mkdtemp(prefix="memory-curve-")
    ports, processes = start(arguments.binary, arguments.mode, directory)
    try:
        is_flat = verdict(load(arguments, ports, processes, random.Random(arguments.seed)))
    except BaseException:
        print(f"what the nodes said is kept: {directory}", file=sys.stderr)
        raise
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    shutil.rmtree(directory)
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
