"""Which task goes to which device. Pure: it holds no task, no clock and no connection, so that it can be tested by itself.

**The rule.** A device with a free slot takes, of all waiting tasks that it can run, the one that was accepted first: it makes no
difference whether a task asks for this device or for any that fits. If several devices have a free slot for a task, an idle one gets it
before a busy one, and of those the one that has been free for longest. So a task waits only while every device that can run it has
older ones to do, and a device that is not there holds up only the tasks that need it.

**What is in memory.** Tasks that need the same of a device wait in one `TaskQueue`, which knows its oldest few and leaves the others on
disk. A device compares the oldest of all queues that it serves. If that one is still on disk, the device waits until it was read, and does
not take a younger task meanwhile.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.queues import DeviceState, TaskQueue
from galaxy_trio.daemon.records import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from galaxy_trio.daemon.records import TaskRecord

MAX_QUEUES: Final = 1_000
"""Different requirements for which tasks may wait at the same time, besides those that name a device."""
_KEPT: Final = 100
"""Queues that are kept for the next task although they are empty."""


class DeviceSlots:
    """The slots of a device.

    Attributes:
        device_id: Its name.
        size: How many it has.
        taken: How many have a task.
        state: What is known of the device.
        queues: Those that it serves now: none while it is not connected.
    """

    def __init__(self, device_id: str, size: int, state: DeviceState) -> None:
        self.device_id = device_id
        self.size = size
        self.taken = 0
        self.state = state
        self.queues: dict[Requirement, TaskQueue] = {}

    @property
    def has_room(self) -> bool:
        """Whether a task could be begun now."""
        return self.state.connected and self.taken < self.size

    def can_run(self, requirement: Requirement) -> bool:
        """Whether it is the device that was asked for, or fits."""
        return requirement.device == self.device_id or (requirement.device is None and self.state.fits(requirement))

    def may_run(self, requirement: Requirement) -> bool:
        """Whether a task may wait for it."""
        if requirement.device is None:
            return self.state.may_fit(requirement)
        return requirement.device == self.device_id and self.state.usable

    def oldest(self) -> TaskQueue | None:
        """The queue that it has to serve next."""
        return min(self.queues.values(), key=lambda queue: queue.next_number, default=None)


class Scheduler:
    """Pairs waiting tasks with free slots.

    Tell it what happens, then call `take` and `check`, which say what is to be done.

    Args:
        max_running: Tasks of all devices together; `None`: as many as there are slots.
    """

    def __init__(self, max_running: int | None = None) -> None:
        self._max_running = math.inf if max_running is None else max_running
        self._taken = 0
        self._devices: dict[str, DeviceSlots] = {}
        # Those with a free slot, each in the order in which they got it.
        self._idle: dict[str, DeviceSlots] = {}
        self._partly_busy: dict[str, DeviceSlots] = {}
        self._queues: dict[Requirement, TaskQueue] = {}
        # Those of them whose tasks name no device.
        self._shared: dict[Requirement, TaskQueue] = {}
        # Those in which something has changed since they were looked at last: to begin tasks, and for the rest. Ordered, without values.
        self._to_take: dict[TaskQueue, None] = {}
        self._to_check: dict[TaskQueue, None] = {}
        self.waiting = 0
        """Tasks that have not begun."""

    @property
    def queues(self) -> Mapping[Requirement, TaskQueue]:
        """All queues, by what their tasks need."""
        return self._queues

    @property
    def devices(self) -> Mapping[str, DeviceSlots]:
        """All devices, by name."""
        return self._devices

    @property
    def in_memory(self) -> int:
        """Waiting tasks that are in memory."""
        return sum(queue.in_memory for queue in self._queues.values())

    def queued_for(self, device_id: str) -> int:
        """How many tasks ask for a device and have not begun."""
        queue = self._queues.get(Requirement(device_id))
        return 0 if queue is None else queue.waiting

    # ---- devices

    def add_device(self, device_id: str, size: int, state: DeviceState) -> DeviceSlots:
        """A device was added; one of the same name must have been removed."""
        slots = self._devices[device_id] = DeviceSlots(device_id, size, state)
        self._match_all(slots)
        self._set_free(slots)
        return slots

    def change_device(self, slots: DeviceSlots, state: DeviceState) -> None:
        """A device may have connected or left, or is known better."""
        if slots.state == state:
            return
        slots.state = state
        self._match_all(slots)
        self._set_free(slots)

    def remove_device(self, slots: DeviceSlots) -> None:
        """A device has gone; what runs in its slots still has to be released."""
        del self._devices[slots.device_id]
        slots.state = DeviceState(connected=False, usable=False, known=True, os=None, capabilities=frozenset())
        self._match_all(slots)
        self._set_free(slots)

    def release(self, slots: DeviceSlots) -> None:
        """A task that was taken needs its slot no longer."""
        slots.taken -= 1
        self._taken -= 1
        self._set_free(slots)

    def _set_free(self, slots: DeviceSlots) -> None:
        """Put a device where it is looked for when a task needs a slot."""
        for free in (self._idle, self._partly_busy):
            if free.get(slots.device_id) is slots:
                del free[slots.device_id]
        if slots.has_room:
            (self._partly_busy if slots.taken else self._idle)[slots.device_id] = slots
            self._to_take.update(
                dict.fromkeys(queue for queue in slots.queues.values() if queue.next_number < math.inf)
            )

    def _match_all(self, slots: DeviceSlots) -> None:
        own = self._queues.get(Requirement(slots.device_id))
        for queue in (*self._shared.values(), *(() if own is None else (own,))):
            self._match(slots, queue)

    def _match(self, slots: DeviceSlots, queue: TaskQueue) -> None:
        """See whether a device serves a queue, and whether its tasks may wait for the device."""
        requirement = queue.requirement
        serves, served = slots.state.connected and slots.can_run(requirement), requirement in slots.queues
        if serves and not served:
            slots.queues[requirement] = queue
            queue.slots += slots.size
        elif served and not serves:
            del slots.queues[requirement]
            queue.slots -= slots.size
        if slots.may_run(requirement):
            queue.candidates.add(slots.device_id)
        else:
            queue.candidates.discard(slots.device_id)
        self._to_check[queue] = None

    # ---- tasks

    def has_queue_for(self, requirement: Requirement) -> bool:
        """Whether a task that needs this can be accepted: so many different requirements are waited for and no more."""
        if requirement.device is not None or requirement in self._shared or len(self._shared) < MAX_QUEUES:
            return True
        return sum(queue.waiting > 0 for queue in self._shared.values()) < MAX_QUEUES

    def load(self, requirement: Requirement, waiting: int) -> None:
        """So many tasks are on disk from before."""
        self.waiting += waiting
        self._add_queue(TaskQueue(requirement, waiting))

    def accept(self, record: TaskRecord) -> None:
        """A task was accepted."""
        self.waiting += 1
        requirement = record.asked.requirement
        queue = self._queues.get(requirement) or self._add_queue(TaskQueue(requirement))
        queue.accept(record)
        self._touch(queue)

    def add_page(self, queue: TaskQueue, records: list[TaskRecord], *, is_last: bool) -> None:
        """The next page of a queue was read."""
        queue.add_page(records, is_last=is_last)
        self._touch(queue)
        # Devices may have waited for it to know which of their queues comes first.
        for slots in chain(self._idle.values(), self._partly_busy.values()):
            if queue.requirement in slots.queues:
                self._to_take.update(dict.fromkeys(slots.queues.values()))

    def put_back(self, record: TaskRecord) -> None:
        """A task that was taken could not be begun; it is as it was before."""
        queue = self._queues[record.asked.requirement]
        queue.put_back(record)
        self._touch(queue)

    def begun(self, record: TaskRecord) -> None:
        """A task that was taken runs."""
        self._count_down(record)

    def withdraw(self, record: TaskRecord) -> None:
        """A task was cancelled, or has failed, and had not begun."""
        queue = self._count_down(record)
        queue.discard(record)
        self._to_check[queue] = None

    def _count_down(self, record: TaskRecord) -> TaskQueue:
        self.waiting -= 1
        queue = self._queues[record.asked.requirement]
        queue.waiting -= 1
        return queue

    def _touch(self, queue: TaskQueue) -> None:
        self._to_take[queue] = None
        self._to_check[queue] = None

    def _add_queue(self, queue: TaskQueue) -> TaskQueue:
        if len(self._queues) >= _KEPT + len(self._devices):
            self._drop_empty_queues()
        self._queues[queue.requirement] = queue
        if queue.requirement.device is None:
            self._shared[queue.requirement] = queue
        for slots in self._asked_of(queue):
            self._match(slots, queue)
        self._touch(queue)
        return queue

    def _asked_of(self, queue: TaskQueue) -> list[DeviceSlots]:
        """The device that its tasks ask for, or all of them."""
        if queue.requirement.device is None:
            return list(self._devices.values())
        slots = self._devices.get(queue.requirement.device)
        return [] if slots is None else [slots]

    def _drop_empty_queues(self) -> None:
        for queue in [queue for queue in self._queues.values() if not queue.waiting and not queue.reading]:
            del self._queues[queue.requirement]
            self._shared.pop(queue.requirement, None)
            self._to_take.pop(queue, None)
            self._to_check.pop(queue, None)
            for slots in self._asked_of(queue):
                slots.queues.pop(queue.requirement, None)

    # ---- what is to be done

    def take(self) -> Iterator[tuple[TaskRecord, DeviceSlots]]:
        """Take the tasks that are to be begun now, each with the device whose slot it has from now on."""
        while self._to_take and self._taken < self._max_running:
            queue = min(self._to_take, key=lambda queue: queue.next_number)
            slots = None if queue.first is None else self._free_slots_for(queue)
            if slots is None:
                del self._to_take[queue]
                continue
            record = queue.take()
            slots.taken += 1
            self._taken += 1
            self._set_free(slots)
            self._to_check[queue] = None
            yield record, slots

    def _free_slots_for(self, queue: TaskQueue) -> DeviceSlots | None:
        """The device that is to take the oldest of a queue. One with an older task that is still on disk waits for that."""
        if queue.requirement.device is not None:
            slots = self._devices.get(queue.requirement.device)
            return slots if slots is not None and slots.has_room and slots.oldest() is queue else None
        for slots in chain(self._idle.values(), self._partly_busy.values()):
            if queue.requirement in slots.queues and slots.oldest() is queue:
                return slots
        return None

    def check(self, *, may_fail: bool = True) -> tuple[list[TaskQueue], list[TaskQueue]]:
        """The queues whose next page is to be read now, and those whose tasks are to fail, because there is no device for them.

        They count as being read, and as being failed, from now on.

        Args:
            may_fail: Whether the second list may have any; they are looked at again after `check_all`.
        """
        to_read = [queue for queue in self._to_check if queue.wants_page]
        to_fail = [queue for queue in self._to_check if may_fail and queue.has_no_candidate and not queue.failing]
        self._to_check.clear()
        for queue in to_read:
            queue.reading = True
        for queue in to_fail:
            queue.failing = True
        return to_read, to_fail

    def check_all(self) -> None:
        """Look at all queues at the next `check`."""
        self._to_check.update(dict.fromkeys(self._queues.values()))
