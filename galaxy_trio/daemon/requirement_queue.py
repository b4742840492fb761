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
"""Before all tasks."""
NONE: Final[Rank] = (MAX_PRIORITY + 1, 0)
"""After all tasks."""


def _rank(record: TaskRecord) -> Rank:
    return record.rank


class RequirementQueue:
    """The queued tasks with one requirement, by priority and then in the order of acceptance.

    At most about `room` of them are claimed, so that no other daemon takes them, and in memory, with the beginnings of their requests. The
    others are free, or another daemon has claimed them. The owner changes the claims when `wants_change` is true: it gives back what
    `take_surplus` returns, or else claims as many tasks as `room_to_claim`, and passes them to `add_claimed`; then it calls `end_change`.
    Claimed and accepted tasks must be added in the order of the database.

    Attributes:
        requirement: The tasks' requirement.
        queued: The number of queued tasks, whichever daemon has claimed them.
        slots: The number of slots of connected devices that may take the tasks.
        free_slots: The number of those that are free and would take a task of this queue next. It limits the claims in place of `slots`,
            so that no task waits here while another daemon has a free slot; `None` if no other daemon can.
        candidates: The devices that the tasks may wait for, connected or not.
        changing: Whether the claims are being changed.
        failing: Whether the tasks are being failed because no device can run them.
    """

    def __init__(self, requirement: Requirement, queued: int = 0) -> None:
        self.requirement = requirement
        self.queued: int = queued
        self.slots: int = 0
        self.free_slots: int | None = None
        self.candidates: set[str] = set()
        self.changing: bool = False
        self.failing: bool = False
        self._claimed: list[TaskRecord] = []
        # No free task has a rank before this one. `NONE`: no task is known to be free.
        self._free_from: Rank = _FIRST if queued else NONE
        # The same of those that were reported while tasks are being claimed: the claim may not have seen them.
        self._reported_free: Rank = NONE

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
        """The rank of the first task, or one before it while the task is not claimed; `NONE` if no task is known."""
        return min(self._claimed[0].rank, self._free_from) if self._claimed else self._free_from

    @property
    def has_no_candidate(self) -> bool:
        """Whether there are queued tasks and no device may run them."""
        return self.queued > 0 and not self.candidates

    @property
    def room(self) -> int:
        """How many tasks may be claimed; 0 while no connected device can take them."""
        if self.free_slots is not None:
            return self.free_slots
        return self.slots + READ_AHEAD if self.slots else 0

    @property
    def room_to_claim(self) -> int:
        """How many tasks to claim: at least half of the room, because free ones may go before the claimed ones, which are surplus then."""
        return max(self.room - len(self._claimed), (self.room + 1) // 2)

    @property
    def wants_change(self) -> bool:
        """Whether the claims should be changed now: there are too many, or the first task is free, or half of the room is not used."""
        if self.changing:
            return False
        if len(self._claimed) > self.room:
            return True
        return self._free_from < NONE and self.room > 0 and (self.first is None or 2 * len(self._claimed) <= self.room)

    def has_room_for(self, priority: int) -> bool:
        """Whether a task that is accepted now should be claimed with its acceptance: it has a place, and no free task goes before it."""
        if not self.room or -priority >= self._free_from[0]:
            return False
        return len(self._claimed) < self.room or -priority < self._claimed[self.room - 1].rank[0]

    def add_claimed(self, records: Sequence[TaskRecord], *, is_last: bool) -> None:
        """Add the first of the free tasks, which were claimed; the last ones, if no others are free."""
        self._free_from = min(self._reported_free, NONE if is_last else records[-1].rank)
        for record in records:
            self.put(record)

    def put(self, record: TaskRecord) -> None:
        """Add a claimed task at its place: one that was just accepted, or that was taken and has not begun."""
        insort(self._claimed, self._with_shared_requirement(record), key=_rank)

    def set_free(self, rank: Rank) -> None:
        """Add a free task that was just accepted."""
        self._free_from = min(self._free_from, rank)

    def report_free(self, rank: Rank) -> None:
        """Report that a task of this rank may be free, in any order with the changes of the claims."""
        self.set_free(rank)
        if self.changing:
            self._reported_free = min(self._reported_free, rank)

    def load(self, queued: int) -> None:
        """Set the number of queued tasks. Those that are not claimed here may be free, also before the claimed ones."""
        self.queued = queued
        if queued > len(self._claimed):
            self.report_free(_FIRST)

    def look_for_free(self) -> None:
        """Assume that the queued tasks that are not claimed here are free, after the claimed ones."""
        if self.queued > len(self._claimed):
            self.report_free(self._claimed[-1].rank if self._claimed else _FIRST)

    def end_change(self) -> None:
        """Report that the claims are no longer being changed."""
        self.changing = False
        self._reported_free = NONE

    def take_surplus(self) -> list[TaskRecord]:
        """Remove the last claimed tasks, those for which there is no room, and return them; they are free soon."""
        surplus = self._claimed[self.room :]
        del self._claimed[self.room :]
        if surplus:
            self.set_free(surplus[0].rank)
        return surplus

    def _with_shared_requirement(self, record: TaskRecord) -> TaskRecord:
        """The record with the queue's own capabilities: otherwise each record would have equal ones of its own."""
        if not self.requirement.capabilities:
            return record
        return attrs.evolve(record, asked=attrs.evolve(record.asked, capabilities=self.requirement.capabilities))

    def take(self) -> TaskRecord:
        """Remove the first task, which must be claimed."""
        return self._claimed.pop(0)

    def discard(self, record: TaskRecord) -> None:
        """Remove a task that is no longer queued, if it is in memory."""
        self._claimed = [other for other in self._claimed if other.id != record.id]
