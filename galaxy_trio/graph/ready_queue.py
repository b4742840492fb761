"""The nodes of a graph that are ready, in the order in which they go to their devices."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable

    from galaxy_trio.graph.model import Node

_WINDOW: Final = 100
"""The number of nodes with the same requirements that wait for devices together. Each takes a task; the others wait here."""

_STALE: Final = 1_000
"""The number of entries that are out of date and may stay, besides one for each node."""

_Entry: TypeAlias = tuple[int, int, str]


class Taken(NamedTuple):
    """A node that was taken from the queue.

    Attributes:
        node_id: The node's id.
        requirements: Its requirements, for `ReadyQueue.release`.
        turn: Its turn among the nodes with its priority, for `ReadyQueue.add`.
    """

    node_id: str
    requirements: Hashable
    turn: int


class ReadyQueue:
    """Ready nodes, by priority and then by the order in which they became ready.

    At most 100 nodes with the same requirements of a device wait for one together. So nodes that wait for an absent device cost little,
    and delay none that another device can run.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._queue: list[_Entry] = []
        # Ready nodes that have not been taken, each with its requirements. Entries of others are out of date.
        self._ready: dict[_Entry, Hashable] = {}
        self._entry_of: dict[str, _Entry] = {}
        self._taken: defaultdict[Hashable, int] = defaultdict(int)
        self._parked: dict[Hashable, list[_Entry]] = {}
        self._entries = 0

    def add(self, node: Node, turn: int | None = None) -> None:
        """Add a node that became ready, at the end or with the turn that it had before; one that is there moves."""
        self.discard(node.id)
        entry = self._entry_of[node.id] = (-node.priority, next(self._numbers) if turn is None else turn, node.id)
        self._ready[entry] = node.device, node.os, node.capabilities, node.where
        heapq.heappush(self._queue, entry)
        self._entries += 1
        if self._entries > 2 * len(self._ready) + _STALE:
            self._drop_stale()

    def _drop_stale(self) -> None:
        """Drop the entries that are out of date."""
        for queue in (self._queue, *self._parked.values()):
            queue[:] = [entry for entry in queue if entry in self._ready]
            heapq.heapify(queue)
        self._entries = len(self._ready)

    def discard(self, node_id: str) -> None:
        """Remove a node, if it is there."""
        entry = self._entry_of.pop(node_id, None)
        if entry is not None:
            del self._ready[entry]

    def take(self) -> Taken | None:
        """Remove and return the next node that may wait for a device; None if there is none."""
        while self._queue:
            entry = heapq.heappop(self._queue)
            if entry not in self._ready:
                self._entries -= 1
                continue
            requirements = self._ready[entry]
            if self._taken[requirements] >= _WINDOW:
                heapq.heappush(self._parked.setdefault(requirements, []), entry)
                continue
            self._taken[requirements] += 1
            self._entries -= 1
            _, turn, node_id = entry
            self.discard(node_id)
            return Taken(node_id, requirements, turn)
        return None

    def release(self, requirements: Hashable) -> None:
        """Make room for another node with these requirements."""
        self._taken[requirements] -= 1
        if not self._taken[requirements]:
            del self._taken[requirements]
        parked = self._parked.get(requirements, [])
        while parked:
            entry = heapq.heappop(parked)
            # One that was discarded takes no room.
            if entry in self._ready:
                heapq.heappush(self._queue, entry)
                return
            self._entries -= 1
        self._parked.pop(requirements, None)
