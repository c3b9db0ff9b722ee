#!/usr/bin/env python3
"""Times small searches and the build of indexes after a start, of builds side by side.

    cargo build --release
    python3 utilities/search_figures.py [NAME=BINARY ...] [--documents 100000] [--start-documents 1000000] [--rounds 5]

Each binary (the one that was just built, unless others are named) is a node on loopback with one shard and
with two, in a directory of its own. Documents have a word that all have, nine of a vocabulary of
100,000 as frequent as in prose, and one of their own. Rounds are done by turns, so that what else the
machine does meets all of them alike. A line a figure: median, and in brackets the least and the most.
"""

import argparse
import json
import random
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

BATCH = 5_000
SEARCHES_A_ROUND = 1_000
VOCABULARY = 100_000


class Node:
    """A node and a connection to it."""

    def __init__(self, binary, directory, shards):
        arguments = [binary, "--port", "0", "--data-dir", directory, "--shards", str(shards)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if address := re.search(r"127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise SystemExit(f"{binary} has ended")
        connection = socket.create_connection(("127.0.0.1", int(address[1])))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = connection.makefile("rwb")

    def call(self, request):
        self.stream.write(json.dumps(request).encode() + b"\n")
        self.stream.flush()
        return json.loads(self.stream.readline())

    def when_ok(self, request):
        while not (reply := self.call(request))["ok"]:
            if not reply["error"]["retryable"]:
                raise SystemExit(f"{request['op']}: {reply}")
            time.sleep(0.005)
        return reply

    def load(self, documents):
        seeded = random.Random(1)
        for first in range(0, documents, BATCH):
            records = []
            for number in range(first, min(first + BATCH, documents)):
                words = [f"w{int(VOCABULARY ** seeded.random())}" for _ in range(9)]
                records.append([f"doc:{number:07d}", " ".join(["common", *words, f"rare{number}"])])
            self.when_ok({"op": "bulk_set", "records": records})

    def microseconds(self, requests):
        took = []
        for request in requests:
            began = time.perf_counter()
            self.call(request)
            took.append(time.perf_counter() - began)
        return statistics.median(took) * 1e6

    def kill(self):
        self.process.kill()
        self.process.wait()


def show(what, figures, unit):
    for name, values in figures.items():
        low, high = min(values), max(values)
        print(f"{what}, {name}: {statistics.median(values):.{2 if unit == 's' else 0}f} {unit} ({low:.2f} to {high:.2f})", flush=True)


def searches(binaries, documents, rounds, shards):
    rare = lambda: f"rare{random.randrange(documents)}"
    kinds = {
        "a ping": lambda: {"op": "ping"},
        "a rare word": lambda: {"op": "search_text", "query": rare(), "limit": 10},
        "a rare and a common word": lambda: {"op": "search_text", "query": f"common {rare()}", "limit": 10},
        "nothing found": lambda: {"op": "search_text", "query": f"nothing {rare()}", "limit": 10},
    }
    nodes, directories = {}, []
    for name, binary in binaries.items():
        directories.append(tempfile.mkdtemp(prefix="datastore-figures-"))
        nodes[name] = Node(binary, directories[-1], shards)
        nodes[name].load(documents)
        nodes[name].when_ok({"op": "search_text", "query": "common", "limit": 1})
    figures = {kind: {name: [] for name in nodes} for kind in kinds}
    for _ in range(rounds):
        for name, node in nodes.items():
            for kind, request in kinds.items():
                figures[kind][name].append(node.microseconds(request() for _ in range(SEARCHES_A_ROUND)))
    for kind, values in figures.items():
        show(f"{shards} shards, {kind}", values, "us")
    for node in nodes.values():
        node.kill()
    for directory in directories:
        shutil.rmtree(directory)


def starts(binaries, documents, rounds):
    """All begin from the same directory: what a killed node left."""
    with tempfile.TemporaryDirectory(prefix="datastore-figures-") as directory:
        node = Node(next(iter(binaries.values())), directory, 1)
        node.load(documents)
        node.kill()
        figures = {name: [] for name in binaries}
        for _ in range(rounds):
            for name, binary in binaries.items():
                began = time.perf_counter()
                node = Node(binary, directory, 1)
                node.when_ok({"op": "search_text", "query": "rare1", "limit": 1})
                figures[name].append(time.perf_counter() - began)
                node.kill()
        show(f"searches of {documents:,} documents after a kill", figures, "s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="*", metavar="NAME=BINARY", default=["node=target/release/datastore-node"])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--start-documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    binaries = dict(binary.split("=", 1) for binary in arguments.binaries)
    for shards in (1, 2):
        searches(binaries, arguments.documents, arguments.rounds, shards)
    starts(binaries, arguments.start_documents, arguments.rounds)


if __name__ == "__main__":
    main()
