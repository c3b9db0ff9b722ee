"""Where a node listens."""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import NamedTuple, Union


class Address(NamedTuple):
    """A host name or IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def address_of(host: object, port: object) -> Address:
    """Checks what a caller or a node gave."""
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"a host is a str and a port an int, not {host!r} and {port!r}")
    if not host or not 1 <= port <= 65535:
        raise ValueError(f"a host is not empty and a port is 1 to 65535, not {host!r} and {port}")
    return Address(host, port)


def addresses_of(host: Union[str, Iterable[str]], port: int) -> list[Address]:
    """Of one or several, each a host or `host:port`; `port` is that of hosts that have none."""
    hosts = [host] if isinstance(host, str) else list(host)
    if not hosts:
        raise ValueError("at least one host is wanted")
    return [_address_of_text(host, port) for host in hosts]


def _address_of_text(text: str, port: int) -> Address:
    if not isinstance(text, str):
        raise TypeError(f"a host is a str, not {text!r}")
    host, colon, behind = text.rpartition(":")
    # An IPv6 address has colons itself: only behind its brackets one begins a port.
    if not colon or (":" in host and not host.endswith("]")):
        return address_of(text.strip("[]"), port)
    if not (behind.isascii() and behind.isdigit()):
        raise ValueError(f"an address is `host`, `host:port` or `[ipv6]:port`, not {text!r}")
    return address_of(host.strip("[]"), int(behind))


def check_seconds(name: str, seconds: float) -> float:
    """A time to wait: seconds, more than none."""
    if not seconds > 0:
        raise ValueError(f"`{name}` is a number of seconds above 0, not {seconds!r}")
    return seconds


def has_ended(descriptor: int) -> bool:
    """Whether an idle connection is of no use: its end, or something that nobody asked for, came in.

    Found out before a write is sent, so that a node's restart while the
    connection was idle makes no write's outcome unknown.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])  # Windows has no poll
