"""Real nodes, servers that misbehave, and the asyncio client driven as if it were a blocking one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, BinaryIO, Callable, Optional, Union

from datastore import AsyncDatastoreConnector, DatastoreConnector, IndexNotReady

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 60.0
"""Longer than anything takes on a busy machine: a bound, not an expectation."""


def binary() -> str:
    """The node under test."""
    path = os.environ.get("DATASTORE_NODE")
    if not path or not os.access(path, os.X_OK):
        raise RuntimeError(f"DATASTORE_NODE must be the path of datastore-node's binary, not {path!r}")
    return path


class Node:
    """A node in a directory of its own, on a port that the system chooses."""

    def __init__(self, *flags: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._flags = ["--shards", "4", *flags]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Starts it, again on the same port, and waits until it serves."""
        command = [binary(), "--port", str(self.port), "--log-format", "json"]
        command += ["--data-dir", self._directory.name, *self._flags]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line.decode())
            fields = json.loads(line)["fields"]
            if fields["message"] == "serving":
                self.port = int(fields["address"].rsplit(":", 1)[1])
                break
        else:
            raise RuntimeError("the node ended instead of serving:\n" + "".join(said))
        # The pipe must be emptied, or the node would wait for room in it one day.
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()
        self._await_indexes()

    def _await_indexes(self) -> None:
        with DatastoreConnector(port=self.port) as client:
            while True:
                try:
                    client.search_text("x")
                    return
                except IndexNotReady as error:
                    assert 0 <= error.progress <= 1

    def kill(self) -> None:
        """SIGKILL, to this process alone; waits for its end."""
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self._drain.join(PATIENCE_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def remove(self) -> None:
        """Ends it for good."""
        self.kill()
        self._directory.cleanup()


class Peer:
    """A server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.lines: BinaryIO = connection.makefile("rb")

    def request(self) -> Any:
        """The next request."""
        return json.loads(self.lines.readline())

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.socket.sendall(data)

    def reply(self, **fields: Any) -> None:
        """A reply that is `ok`."""
        self.send(json.dumps({"ok": True, **fields}).encode() + b"\n")


Script = Callable[[Peer], None]


class Server:
    """Serves one connection after the other, each by its script; then nobody listens any more."""

    def __init__(self, *scripts: Script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self.closed = [threading.Event() for _ in scripts]
        self.released = threading.Event()
        """What a script may wait for; set when the test ends."""
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._serve, args=(scripts,), daemon=True)
        self._thread.start()

    def _serve(self, scripts: list[Script]) -> None:
        try:
            for script, closed in zip(scripts, self.closed):
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE_SECONDS)
                with connection:
                    peer = Peer(connection)
                    script(peer)
                    peer.lines.close()
                closed.set()
        except BaseException as error:
            self._error = error
        finally:
            self._listener.close()

    def wait(self) -> None:
        """Until every script has run, or the test fails with what went wrong in one."""
        self.released.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._error is not None:
            raise self._error


class FakeNode:
    """A node of a cluster that a test scripts, for any number of connections.

    The script gets the number of the request and the request; None closes the connection.
    """

    def __init__(
        self, script: Callable[[int, Any], Optional[dict[str, Any]]], port: int = 0, is_silent: bool = False
    ) -> None:
        """`is_silent`: it takes requests, and answers nothing until it is closed."""
        self._is_silent = is_silent
        self._ends = threading.Event()
        self.requests: list[Any] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed at the end of the test
            self._start(self._converse, connection)

    def _converse(self, connection: socket.socket) -> None:
        # A client that has gone needs no answer.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                if self._is_silent:
                    self._ends.wait(PATIENCE_SECONDS)
                # By this a client of several nodes finds out whether somebody is there.
                if request == {"op": "ping", "id": 0}:
                    connection.sendall(b'{"ok":true,"id":0,"pong":true}\n')
                    continue
                with self._lock:
                    self.requests.append(request)
                    number = len(self.requests) - 1
                reply = self._script(number, request)
                if reply is None:
                    return
                connection.sendall(json.dumps(reply).encode() + b"\n")

    def operations(self) -> list[str]:
        """What it was asked so far."""
        return [request["op"] for request in self.requests]

    def close(self) -> None:
        """Behind the clients' end."""
        self._ends.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)


class Driven:
    """The asyncio client with the blocking client's face, so that both keep the same promises."""

    def __init__(self, client: AsyncDatastoreConnector, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if inspect.isasyncgen(result):
                return self._items(result)
            if inspect.iscoroutine(result):
                return self._loop.run_until_complete(result)
            return DrivenPipeline(result, self._loop)

        return call

    def _items(self, items: Any) -> Any:
        while True:
            try:
                yield self._loop.run_until_complete(items.__anext__())
            except StopAsyncIteration:
                return


class DrivenPipeline:
    """The asyncio pipeline with the blocking one's face."""

    def __init__(self, pipeline: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._pipeline, self._loop = pipeline, loop

    def __enter__(self) -> Any:
        return self._loop.run_until_complete(self._pipeline.__aenter__())

    def __exit__(self, *error: Any) -> None:
        self._loop.run_until_complete(self._pipeline.__aexit__(*error))


class ClientCase(unittest.TestCase):
    """Tests of a client, whichever kind it is; `client` makes one that is closed at the end."""

    is_async = False

    def client(self, port: int = 9000, host: Union[str, list[str]] = "127.0.0.1", **options: Any) -> Any:
        if not self.is_async:
            client = DatastoreConnector(host, port, **options)
            self.addCleanup(client.close)
            return client
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        driven = Driven(AsyncDatastoreConnector(host, port, **options), loop)
        self.addCleanup(lambda: driven.close())
        return driven

    def fake_node(
        self, script: Callable[[int, Any], Optional[dict[str, Any]]], port: int = 0, is_silent: bool = False
    ) -> FakeNode:
        node = FakeNode(script, port, is_silent)
        self.addCleanup(node.close)
        return node

    def server(self, *scripts: Script) -> Server:
        server = Server(*scripts)
        self.addCleanup(server.wait)
        return server


class NodeCase(ClientCase):
    """Tests with a real node that is empty at the beginning of each."""

    node: Node

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = Node()
        cls.addClassCleanup(cls.node.remove)

    def setUp(self) -> None:
        self.c: Any = self.client(self.node.port, timeout=PATIENCE_SECONDS)
        keys = [item.key for item in self.c.scan(values=False)]
        for start in range(0, len(keys), 10_000):
            self.c.bulk_delete(keys[start : start + 10_000])


def promised_output(code: str) -> list[str]:
    """The comments behind `print(…)`s: what a script says that it prints. `…` stands for anything."""
    return re.findall(r"print\(.*\) +# (.*)$", code, re.MULTILINE)


def assert_printed(case: unittest.TestCase, code: str, printed: str) -> None:
    """Whether a script printed what its comments say."""
    promised, lines = promised_output(code), printed.splitlines()
    case.assertEqual(len(promised), len(lines), f"{promised}\n{lines}")
    for promise, line in zip(promised, lines):
        pattern = ".*".join(re.escape(piece) for piece in promise.split("…"))
        case.assertRegex(line, f"^{pattern}$")
