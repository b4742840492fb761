"""The queue of the tasks with one requirement: the first few are claimed and in memory, the others are in the database alone."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio._arguments import MAX_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.daemon.store.records import Rank, Requirement, TaskRecord

READ_AHEAD: Final = 16
"""Tasks that a queue claims in addition to one for each slot that may take them."""
_FIRST: Final[Rank] = (-MAX_PRIORITY - 1, 0)
NONE: Final[Rank] = (MAX_PRIORITY + 1, 0)
"""After all tasks."""


def _rank(record: TaskRecord) -> Rank:
    return record.rank


class RequirementQueue:
    """The queued tasks with one requirement, by priority and then in the order of acceptance.

    At most `room` of them are claimed. The owner claims further ones when `wants_claim` is true, and passes them to `add_claimed`; it frees
    the tasks that `take_surplus` returns, and calls `returned` then. All of this is reported in the order of the database.

    Attributes:
        requirement: The tasks' requirement.
        queued: The number of queued tasks, claimed or free.
        slots: The number of slots of connected devices that may take the tasks.
        candidates: The devices that the tasks may wait for, connected or not.
        claiming: Whether further tasks are being claimed.
        failing: Whether the tasks are being failed because no device can run them.
    """

    def __init__(self, requirement: Requirement, queued: int = 0) -> None:
        self.requirement = requirement
        self.queued: int = queued
        self.slots: int = 0
        self.candidates: set[str] = set()
        self.claiming: bool = False
        self.failing: bool = False
        self._claimed: list[TaskRecord] = []
        # A rank that is not after that of any free task; `NONE` if there is none.
        self._free_from = _FIRST if queued else NONE
        # Calls of `returned` that are due.
        self._returning = 0

    @property
    def in_memory(self) -> int:
        """How many tasks are in memory."""
        return len(self._claimed)

    @property
    def first(self) -> TaskRecord | None:
        """The first task, if it is claimed."""
        return self._claimed[0] if self._claimed and self._claimed[0].rank <= self._free_from else None

    @property
    def next_rank(self) -> Rank:
        """The rank of the first task, or one before it while the task is not claimed; `NONE` if no task is queued."""
        return min(self._claimed[0].rank, self._free_from) if self._claimed else self._free_from

    @property
    def has_no_candidate(self) -> bool:
        """Whether there are queued tasks and no device may run them."""
        return self.queued > 0 and not self.candidates

    @property
    def room(self) -> int:
        """How many tasks may be claimed; 0 while no connected device can take them."""
        return self.slots + READ_AHEAD if self.slots else 0

    @property
    def wants_claim(self) -> bool:
        """Whether tasks should be claimed now, because the first one is free or at most half of the room is used."""
        if self._free_from == NONE or self.claiming or self._returning or not self.room:
            return False
        return self.first is None or 2 * len(self._claimed) <= self.room

    def has_room_for(self, priority: int) -> bool:
        """Whether a task that is accepted now should be claimed with its acceptance: no free task goes before it, and it has a place."""
        if not self.room or -priority >= self._free_from[0]:
            return False
        return len(self._claimed) < self.room or -priority < self._claimed[-1].rank[0]

    def accept(self, record: TaskRecord) -> None:
        """Add a task that was just accepted, claimed or free."""
        self.queued += 1
        if record.claimed_by is None:
            self._set_free([record])
        else:
            self.put_back(record)

    def add_claimed(self, records: Sequence[TaskRecord], *, is_last: bool) -> None:
        """Add the tasks that were claimed, the first of the free ones."""
        self.claiming = False
        # The bound is not after those that are still being freed.
        if not self._returning:
            self._free_from = NONE if is_last else records[-1].rank
        for record in records:
            self.put_back(record)

    def take_surplus(self) -> list[TaskRecord]:
        """Remove the claimed tasks for which there is no room, the last ones, and return them, to be freed."""
        surplus: list[TaskRecord] = []
        # What the next attempt must know of a task is only in memory.
        while len(self._claimed) > self.room and self._claimed[-1].attempt is None:
            surplus.append(self._claimed.pop())
        if surplus:
            self._returning += 1
            self._set_free(surplus)
        return surplus

    def returned(self) -> None:
        """Report that the tasks of a call of `take_surplus` are free."""
        self._returning -= 1

    def _set_free(self, records: Sequence[TaskRecord]) -> None:
        priority, number = min(record.rank for record in records)
        self._free_from = min(self._free_from, (priority, number - 1))

    def _with_shared_requirement(self, record: TaskRecord) -> TaskRecord:
        """The record with the queue's own capabilities: otherwise each record would have equal ones of its own."""
        if not self.requirement.capabilities:
            return record
        return attrs.evolve(record, asked=attrs.evolve(record.asked, capabilities=self.requirement.capabilities))

    def take(self) -> TaskRecord:
        """Remove the first task, which must be claimed."""
        return self._claimed.pop(0)

    def put_back(self, record: TaskRecord) -> None:
        """Add a claimed task at its place, also one that was taken and has not begun."""
        insort(self._claimed, self._with_shared_requirement(record), key=_rank)

    def discard(self, record: TaskRecord) -> None:
        """Remove a task that is no longer queued, if it is in memory."""
        self._claimed = [other for other in self._claimed if other.id != record.id]
