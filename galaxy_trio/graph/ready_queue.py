"""The nodes of a graph that are ready, in the order in which they go to their devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio.constellation.ranked_queue import Rank, RankedQueue, next_rank

if TYPE_CHECKING:
    from galaxy_trio.graph.model import Node

_WINDOW: Final = 100
"""The number of nodes with the same requirements and priority that wait for devices together. Each takes a task; the others wait here."""


@attrs.frozen
class ReadyNode:
    """A node that is ready.

    Attributes:
        rank: Its place among the ready nodes: by priority, then by the order in which they became ready.
        requirements: The requirements of its device.
    """

    id: str
    rank: Rank
    requirements: Hashable

    @property
    def window(self) -> Hashable:
        """The nodes that wait for devices together: a lower priority does not take the place of a higher one."""
        return self.requirements, self.rank[0]


class ReadyQueue:
    """Ready nodes, by priority and then by the order in which they became ready.

    At most 100 nodes with the same requirements of a device, and the same priority, wait for one together. So nodes that wait for an absent
    device cost little, and delay none that another device can run.
    """

    def __init__(self) -> None:
        self._queue = RankedQueue[ReadyNode]()
        self._nodes: dict[str, ReadyNode] = {}
        self._taken: defaultdict[Hashable, int] = defaultdict(int)
        # Nodes whose window is full, and nodes whose devices have full queues.
        self._parked: dict[Hashable, RankedQueue[ReadyNode]] = {}
        self._refused: dict[Hashable, RankedQueue[ReadyNode]] = {}

    def add(self, node: Node) -> None:
        """Add a node that became ready; one that is there goes to the end."""
        self.discard(node.id)
        self.put_back(
            ReadyNode(node.id, next_rank(node.priority), (node.device, node.os, node.capabilities, node.where))
        )

    def put_back(self, ready: ReadyNode) -> None:
        """Add a node that was taken, and is not there, in its old place."""
        self._nodes[ready.id] = ready
        self._queue.add(ready.rank, ready)

    def discard(self, node_id: str) -> None:
        """Remove a node, if it is there."""
        ready = self._nodes.pop(node_id, None)
        if ready is None:
            return
        self._queue.discard(ready.rank, ready)
        for place, queues in ((ready.window, self._parked), (ready.requirements, self._refused)):
            if place in queues:
                queues[place].discard(ready.rank, ready)

    @property
    def first(self) -> ReadyNode | None:
        """The next node that may wait for a device; None if there is none."""
        while (ready := self._queue.first) is not None:
            if ready.requirements in self._refused:
                aside = self._refused[ready.requirements]
            elif self._taken.get(ready.window, 0) >= _WINDOW:
                aside = self._parked.setdefault(ready.window, RankedQueue())
            else:
                return ready
            aside.add(ready.rank, self._queue.pop())
        return None

    def take(self) -> ReadyNode | None:
        """Remove and return the next node that may wait for a device; None if there is none. `release` must follow."""
        ready = self.first
        if ready is not None:
            self._queue.pop()
            self._taken[ready.window] += 1
            del self._nodes[ready.id]
        return ready

    def release(self, taken: ReadyNode) -> None:
        """Make room for another node like this one."""
        self._taken[taken.window] -= 1
        if not self._taken[taken.window]:
            del self._taken[taken.window]
        parked = self._parked.get(taken.window)
        if parked:
            ready = parked.pop()
            self._queue.add(ready.rank, ready)
        else:
            self._parked.pop(taken.window, None)

    def refuse(self, requirements: Hashable) -> bool:
        """Take no nodes with these requirements until `accept`: the queues of their devices are full. Returns whether this is new."""
        if requirements in self._refused:
            return False
        self._refused[requirements] = RankedQueue()
        return True

    def accept(self, requirements: Hashable) -> None:
        """Take nodes with these requirements again."""
        for ready in self._refused.pop(requirements):
            self._queue.add(ready.rank, ready)
