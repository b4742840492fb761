"""The order in which calls get their slots, everywhere: by priority, then by the order in which they were accepted."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from galaxy_trio._arguments import check_priority

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

Rank: TypeAlias = tuple[int, int]
"""The place of a call among all calls: the smallest is first. No two calls have the same one."""

_SLACK: Final = 64
"""The number of ranks of removed items that a queue may keep, besides as many as it has items."""

# A counter instead of a clock, whose ticks may be too coarse to order two calls.
_turns = itertools.count(1)


def next_rank(priority: int) -> Rank:
    """Return the rank of a call that is accepted now: behind all calls of its priority, before all of a lower one.

    Raises:
        ValueError: The priority is not a whole number from -100 to 100.
    """
    check_priority(priority)
    return -priority, next(_turns)


def has_higher_priority(rank: Rank, other: Rank | None) -> bool:
    """Whether a call has a higher priority than another one; any call has one than none."""
    return other is None or rank[0] < other[0]


class RankedQueue(Generic[T]):
    """Items in the order of their ranks. Adding and removing one takes logarithmic time."""

    def __init__(self) -> None:
        self._items: dict[Rank, T] = {}
        # It may hold the ranks of items that were removed, which are skipped.
        self._heap: list[Rank] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        """The items in their order, as they are now."""
        return iter([self._items[rank] for rank in sorted(self._items)])

    @property
    def first_rank(self) -> Rank | None:
        """The rank of the first item."""
        heap = self._heap
        while heap and heap[0] not in self._items:
            heapq.heappop(heap)
        return heap[0] if heap else None

    @property
    def first(self) -> T | None:
        """The first item."""
        rank = self.first_rank
        return None if rank is None else self._items[rank]

    def add(self, rank: Rank, item: T) -> None:
        """Add an item, in place of one with the same rank."""
        self._items[rank] = item
        heapq.heappush(self._heap, rank)

    def discard(self, rank: Rank, item: T) -> None:
        """Remove an item, if it is there, and not another one that has its rank now."""
        if self._items.get(rank) is item:
            del self._items[rank]
            if len(self._heap) > 2 * len(self._items) + _SLACK:
                self._heap = sorted(self._items)

    def pop(self) -> T:
        """Remove and return the first item.

        Raises:
            IndexError: The queue is empty.
        """
        while True:
            rank = heapq.heappop(self._heap)
            if rank in self._items:
                return self._items.pop(rank)

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()
        self._heap.clear()
