"""The queue of the tasks with one requirement: the first few in memory, the others on disk."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Final

import attrs

from galaxy_trio._arguments import MAX_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from galaxy_trio.daemon.store.records import Rank, Requirement, TaskRecord

READ_AHEAD: Final = 16
"""Tasks that a queue holds in memory in addition to one for each slot that may take them."""


FIRST: Final[Rank] = (-MAX_PRIORITY - 1, 0)
"""Before all tasks."""
NONE: Final[Rank] = (MAX_PRIORITY + 1, 0)
"""After all tasks."""


def _rank(record: TaskRecord) -> Rank:
    return record.rank


class RequirementQueue:
    """The queued tasks with one requirement, by priority and then in the order of acceptance.

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
        # Whether there are more tasks on disk, and a rank before all of theirs.
        self._more = queued > 0
        self._known_up_to = FIRST
        # Whether tasks before the page that is being read have left the memory, so that it is of no use.
        self._page_begins_late = False

    @property
    def in_memory(self) -> int:
        """How many tasks are in memory."""
        return len(self._head)

    @property
    def first(self) -> TaskRecord | None:
        """The first task, if it is in memory."""
        return self._head[0] if self._head else None

    @property
    def next_rank(self) -> Rank:
        """The rank of the first task, or one before it while the task is still on disk; `NONE` if no task is queued."""
        if self._head:
            return self._head[0].rank
        return self._known_up_to if self._more else NONE

    @property
    def has_no_candidate(self) -> bool:
        """Whether there are queued tasks and no device may run them."""
        return self.queued > 0 and not self.candidates

    @property
    def known_up_to(self) -> Rank:
        """The rank after which the next page begins."""
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
        """Add a task that was just accepted. The last tasks for which there is no room stay on disk."""
        self.queued += 1
        if self._more and record.rank > self._known_up_to:
            return
        insort(self._head, self._with_shared_requirement(record), key=_rank)
        # What the next attempt must know of a task is only in memory.
        while len(self._head) > self.room and self._head[-1].attempt is None:
            self._more = True
            self._page_begins_late = self.reading
            priority, number = self._head.pop().rank
            self._known_up_to = (priority, number - 1)

    def add_page(self, records: Sequence[TaskRecord], taken: Container[str], *, is_last: bool) -> None:
        """Add tasks that were read from disk, those after `known_up_to`, without those that have a slot."""
        self.reading = False
        if self._page_begins_late:
            self._page_begins_late = False
            return
        self._more = not is_last
        if records:
            self._known_up_to = records[-1].rank
        known = {record.id for record in self._head}
        new = [record for record in records if record.id not in known and record.id not in taken]
        self._head += map(self._with_shared_requirement, new)
        self._head.sort(key=_rank)

    def _with_shared_requirement(self, record: TaskRecord) -> TaskRecord:
        """The record with the queue's own capabilities: otherwise each record would have equal ones of its own."""
        if not self.requirement.capabilities:
            return record
        return attrs.evolve(record, asked=attrs.evolve(record.asked, capabilities=self.requirement.capabilities))

    def take(self) -> TaskRecord:
        """Remove the first task, which must be in memory."""
        return self._head.pop(0)

    def put_back(self, record: TaskRecord) -> None:
        """Return a task that was taken and has not begun to its place, which may be on disk."""
        if self._more and record.rank > self._known_up_to and record.attempt is None:
            return
        insort(self._head, record, key=_rank)

    def discard(self, record: TaskRecord) -> None:
        """Remove a task that is no longer queued, if it is in memory."""
        self._head = [other for other in self._head if other.id != record.id]
