"""The waiting tasks of one requirement: the oldest few in memory, the others on disk."""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.daemon.records import Requirement, TaskRecord

AHEAD: Final = 16
"""Tasks that a queue has in memory, besides one for each slot that may take them."""


def _number(record: TaskRecord) -> int:
    return record.number


class TaskQueue:
    """Tasks that need the same of a device, in the order in which they were accepted.

    It holds `room` tasks in memory. It learns of the others when they are read from disk: the owner reads the page that `wants_page`
    asks for, and gives it to `add_page`. Pages and accepted tasks have to come in the order in which the database has them.

    Attributes:
        requirement: What they need.
        waiting: How many have not begun, in memory or not.
        slots: How many slots of connected devices may take them.
        candidates: The devices that they may wait for, connected or not.
        reading: Whether the next page is being read.
        failing: Whether all of them are being failed, because no device is left for them.
    """

    def __init__(self, requirement: Requirement, waiting: int = 0) -> None:
        self.requirement = requirement
        self.waiting = waiting
        self.slots = 0
        self.candidates: set[str] = set()
        self.reading = False
        self.failing = False
        self._head: list[TaskRecord] = []
        # Whether there are more on disk, and the number up to which none of them is.
        self._more = waiting > 0
        self._known_up_to = 0

    @property
    def in_memory(self) -> int:
        """How many are in memory."""
        return len(self._head)

    @property
    def first(self) -> TaskRecord | None:
        """The oldest, if it is in memory."""
        return self._head[0] if self._head else None

    @property
    def next_number(self) -> float:
        """The number of the oldest, or a lower one while that is still on disk; infinite if none waits."""
        if self._head:
            return self._head[0].number
        return self._known_up_to + 1 if self._more else math.inf

    @property
    def has_no_candidate(self) -> bool:
        """Whether they wait for no device."""
        return self.waiting > 0 and not self.candidates

    @property
    def known_up_to(self) -> int:
        """The number after which the next page begins."""
        return self._known_up_to

    @property
    def room(self) -> int:
        """How many are held in memory: none while no connected device can take them."""
        return self.slots + AHEAD if self.slots else 0

    @property
    def wants_page(self) -> bool:
        """Whether the next page should be read now: half of what was in memory has gone."""
        return self._more and not self.reading and 2 * len(self._head) <= self.room > 0

    def accept(self, record: TaskRecord) -> None:
        """Add a task that was just accepted; it stays on disk if there is no room."""
        self.waiting += 1
        if self._more:
            return
        if len(self._head) < self.room:
            self._head.append(record)
            self._known_up_to = record.number
        else:
            self._more = True
            self._known_up_to = record.number - 1

    def add_page(self, records: Sequence[TaskRecord], *, is_last: bool) -> None:
        """Add what was read from disk after `known_up_to`."""
        self.reading = False
        self._head += records
        self._more = not is_last
        if records:
            self._known_up_to = records[-1].number

    def take(self) -> TaskRecord:
        """Remove the oldest, which is in memory."""
        return self._head.pop(0)

    def put_back(self, record: TaskRecord) -> None:
        """Add a task again that was taken and has not begun: it gets its place back."""
        insort(self._head, record, key=_number)

    def discard(self, record: TaskRecord) -> None:
        """Remove a task that is not queued any more, if it is in memory."""
        self._head = [other for other in self._head if other.id != record.id]


@attrs.frozen
class DeviceState:
    """What the scheduler has to know of a device.

    Attributes:
        connected: Whether it could run a task now.
        usable: Whether a task may wait for it: not if it was given up.
        known: Whether it has said what it is; until then it may have more to tell.
    """

    connected: bool
    usable: bool
    known: bool
    os: str | None
    capabilities: frozenset[str]

    def fits(self, requirement: Requirement) -> bool:
        """Whether it is what a task needs, as far as is known; whether it is the device that was asked for is not looked at."""
        return _same_os(requirement.os, self.os) and self.capabilities.issuperset(requirement.capabilities)

    def may_fit(self, requirement: Requirement) -> bool:
        """Whether it is what a task needs, or may turn out to be."""
        if self.known:
            return self.usable and self.fits(requirement)
        return self.usable and (self.os is None or _same_os(requirement.os, self.os))


def _same_os(needed: str | None, os: str | None) -> bool:
    return needed is None or (os is not None and os.casefold() == needed.casefold())
