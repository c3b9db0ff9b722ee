"""Which node requests go to, and where next when they aren't taken there. No sockets, no waiting.

    writes, linearizable reads ──► leader ──┐
                                            ├──► a connection per node
    local reads, ping, stats … ──► near ────┘

Both begin at the first address. `leader` goes where a `not_leader` points and,
while nobody leads, around the addresses; both leave an address where no
connection can be opened, and one that has fallen silent. Only what certainly
did not happen is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Optional

from .address import Address, address_of
from .delivery import Interruption, may_send_again, settle, unanswered
from .errors import NOT_APPLIED, ClockSkew, DatastoreError, NoLeader, NoQuorum, NotLeader, Starting
from .request import Handle
from .silence import FellSilent, SilentNodes

PAUSE_FIRST_SECONDS = 0.02
"""Between two rounds over all nodes, the first time."""
PAUSE_MAX_SECONDS = 0.5
"""It doubles as far as this: an election takes about a second."""


class Nodes:
    """The nodes of one cluster, as far as a client knows them, and where to begin."""

    def __init__(self, given: Sequence[Address], patience: float) -> None:
        if not patience >= 0:
            raise ValueError(f"`patience` is a number of seconds from 0 on, not {patience!r}")
        self.given = tuple(given)
        self.patience = patience
        self.leader = self.near = self.given[0]
        self.silent = SilentNodes()

    def __repr__(self) -> str:
        if len(self.given) == 1:
            return f"{self.given[0].host!r}, {self.given[0].port}"
        return repr([str(address) for address in self.given])

    def start(self, is_near: bool) -> Address:
        """Where a call begins: where its route leads, or at another node if that one is silent."""
        place = self.near if is_near else self.leader
        return next((node for node in (place, *self.given) if node not in self.silent), place)

    def has_others(self, node: Address) -> bool:
        """Whether another one can be asked."""
        return any(other != node for other in self.given)

    def go(self, is_near: bool, start: Address, end: Address) -> None:
        """Moves on, unless another call has done so."""
        if is_near and self.near == start:
            self.near = end
        if not is_near and self.leader == start:
            self.leader = end


class Search:
    """The way of one call, or of a pipeline, to a node that takes it.

    Until `remaining` is empty: wait for `pause` seconds, exchange `remaining`
    with `node`, and say whether it was `answered` or `interrupted`.
    """

    def __init__(self, nodes: Nodes, handles: Sequence[Handle[Any]], timeout: float) -> None:
        """`timeout`: seconds for the whole of it; a pipeline's replies have so much each."""
        self._nodes = nodes
        self._timeout = timeout
        self._until = time.monotonic() + timeout
        self._is_single = len(handles) == 1
        # As a whole: a read behind a write is to see it.
        self._is_near = all(handle._request.is_near for handle in handles)
        self.node = nodes.start(self._is_near)
        self.remaining = list(handles)
        self.pause = 0.0
        # Nodes asked since the last pause, so that two that name each other don't go on for ever.
        self._asked: list[Address] = []
        # Whether one of them answered: a pause helps only where somebody is.
        self._is_answered = False
        self._next_pause = PAUSE_FIRST_SECONDS
        # When the first answer came: patience runs from then on.
        self._looking_since: Optional[float] = None
        self._is_lost = False

    def time_left(self) -> float:
        """Seconds for the next reply."""
        return max(0.0, self._until - time.monotonic()) if self._is_single else self._timeout

    def look_again(self) -> None:
        """Another call may have found that the node is silent."""
        if self.node in self._nodes.silent:
            self.node = self._nodes.start(self._is_near)

    def answered(self) -> None:
        """Each of `remaining` has its reply; those that may be taken elsewhere remain."""
        refused = [self._may_be_taken_elsewhere(handle) for handle in self.remaining]
        if True not in refused or not self._go_on(self.remaining[refused.index(True)].exception()):
            self.remaining = []
            return
        # A read behind a refused write may have been answered without it, so it is asked again.
        first = refused.index(True)
        behind = zip(self.remaining[first:], refused[first:])
        self.remaining = [handle for handle, again in behind if again or handle._request.is_read]
        for handle in self.remaining:
            handle._reset()

    def interrupted(self, interruption: Interruption) -> None:
        """The exchange ended before each had its reply; those that may be sent again remain."""
        if interruption.code == "not_connected":
            if self._go_on(None):
                return
        elif isinstance(interruption, FellSilent):
            if may_send_again(self.remaining, interruption) and self._go_on(None):
                self.remaining = unanswered(self.remaining)
                return
        elif not self._is_lost and may_send_again(self.remaining, interruption):
            # The node may be there: once more, over a new connection.
            self._is_lost = True
            self.remaining = unanswered(self.remaining)
            return
        settle(self.remaining, interruption)
        self.remaining = []

    def _may_be_taken_elsewhere(self, handle: Handle[Any]) -> bool:
        error = handle.exception()
        # A node that reads its directory says `starting` to all who ask.
        elsewhere = Starting if self._is_near else (NotLeader, NoLeader, NoQuorum, Starting, ClockSkew)
        if not isinstance(error, elsewhere):
            return False
        return error.outcome == NOT_APPLIED

    def _go_on(self, error: Optional[DatastoreError]) -> bool:
        """Turns to the next node; without an error nobody was there. False at the end of patience."""
        if time.monotonic() >= self._until or (error is not None and self._patience() <= 0):
            return False
        self._is_answered |= error is not None
        self._asked.append(self.node)
        start, nodes = self.node, self._nodes
        place = nodes.near if self._is_near else nodes.leader
        candidates: list[Optional[Address]] = [_named_by(error), place, *nodes.given]
        there = (node for node in candidates if node and node not in self._asked and node not in nodes.silent)
        next_node = next(there, None)
        # Whoever comes next begins there, or at the first address when all were asked.
        end = next_node or nodes.given[0]
        for is_near in (True, False) if error is None else (self._is_near,):
            nodes.go(is_near, start, end)
        if next_node is not None:
            self.node, self.pause = next_node, 0.0
            return True
        return self._is_answered and self._begin_again()

    def _patience(self) -> float:
        """The seconds that are left; they begin to run when this is asked first."""
        now = time.monotonic()
        if self._looking_since is None:
            self._looking_since = now
        return min(self._nodes.patience - (now - self._looking_since), self._until - now)

    def _begin_again(self) -> bool:
        """Forgets who was asked, for a round behind a pause. False where no time is left."""
        left = self._patience()
        # Behind the pause there has to be time for an answer.
        if left <= 0 or self._until - time.monotonic() <= self._next_pause:
            return False
        self.pause = min(self._next_pause, left)
        self._next_pause = min(2 * self._next_pause, PAUSE_MAX_SECONDS)
        self._asked = []
        self._is_answered = False
        self.node = self._nodes.start(self._is_near)
        return True


def _named_by(error: Optional[DatastoreError]) -> Optional[Address]:
    """The address in a `not_leader`, if there is one."""
    leader = error.leader if isinstance(error, NotLeader) else None
    if leader is None:
        return None
    try:
        return address_of(leader.get("host"), leader.get("port"))
    except (TypeError, ValueError):
        return None
