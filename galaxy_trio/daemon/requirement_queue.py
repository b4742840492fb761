"""The queue of the tasks with one requirement: the oldest few in memory, the others on disk."""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.daemon.store.records import Requirement, TaskRecord

READ_AHEAD: Final = 16
"""Tasks that a queue holds in memory in addition to one for each slot that may take them."""


def _number(record: TaskRecord) -> int:
    return record.number


class RequirementQueue:
    """The queued tasks with one requirement, in the order of acceptance.

    At most `room` of them are in memory, with the beginnings of their requests. The owner reads the others from disk when `wants_page` is
    true, and passes each page to `add_page`. Pages and accepted tasks must be added in the order of the database.

    Attributes:
        requirement: The tasks' requirement.
        queued: The number of queued tasks, in memory or on disk.
        slots: The number of slots of connected devices that may take the tasks.
        candidates: The devices that the tasks may wait for, connected or not.
        reading: Whether the next page is being read.
        failing: Whether the tasks are being failed because no device can run them.
    """

    def __init__(self, requirement: Requirement, queued: int = 0) -> None:
        self.requirement = requirement
        self.queued: int = queued
        self.slots: int = 0
        self.candidates: set[str] = set()
        self.reading: bool = False
        self.failing: bool = False
        self._head: list[TaskRecord] = []
        # Whether there are more tasks on disk, and a lower bound of their numbers.
        self._more = queued > 0
        self._known_up_to = 0

    @property
    def in_memory(self) -> int:
        """How many tasks are in memory."""
        return len(self._head)

    @property
    def first(self) -> TaskRecord | None:
        """The oldest task, if it is in memory."""
        return self._head[0] if self._head else None

    @property
    def next_number(self) -> float:
        """The number of the oldest task, or a lower bound of it while the task is still on disk; infinite if no task is queued."""
        if self._head:
            return self._head[0].number
        return self._known_up_to + 1 if self._more else math.inf

    @property
    def has_no_candidate(self) -> bool:
        """Whether there are queued tasks and no device may run them."""
        return self.queued > 0 and not self.candidates

    @property
    def known_up_to(self) -> int:
        """The number after which the next page begins."""
        return self._known_up_to

    @property
    def room(self) -> int:
        """How many tasks may be in memory; 0 while no connected device can take them."""
        return self.slots + READ_AHEAD if self.slots else 0

    @property
    def wants_page(self) -> bool:
        """Whether the next page should be read now, because at most half of the room is used."""
        return self._more and not self.reading and 2 * len(self._head) <= self.room > 0

    def accept(self, record: TaskRecord) -> None:
        """Add a task that was just accepted; it stays on disk if there is no room."""
        self.queued += 1
        if self._more:
            return
        if len(self._head) < self.room:
            self._head.append(self._with_shared_requirement(record))
        else:
            self._more = True
            self._known_up_to = record.number - 1

    def add_page(self, records: Sequence[TaskRecord], *, is_last: bool) -> None:
        """Add tasks that were read from disk, those after `known_up_to`."""
        self.reading = False
        self._head += map(self._with_shared_requirement, records)
        self._more = not is_last
        if records:
            self._known_up_to = records[-1].number

    def _with_shared_requirement(self, record: TaskRecord) -> TaskRecord:
        """The record with the queue's own capabilities: otherwise each record would have equal ones of its own."""
        if not self.requirement.capabilities:
            return record
        return attrs.evolve(record, asked=attrs.evolve(record.asked, capabilities=self.requirement.capabilities))

    def take(self) -> TaskRecord:
        """Remove the oldest task, which must be in memory."""
        return self._head.pop(0)

    def put_back(self, record: TaskRecord) -> None:
        """Return a task that was taken and has not begun to its place."""
        insort(self._head, record, key=_number)

    def discard(self, record: TaskRecord) -> None:
        """Remove a task that is no longer queued, if it is in memory."""
        self._head = [other for other in self._head if other.id != record.id]
