"""Assigns queued tasks to devices. It is pure: without a clock, a connection or a database.

**The rule.** Tasks are queued by priority, then in the order of acceptance. A device with a free slot takes the first queued task that it
can run, whether the task names this device or accepts any device that fits. If several devices have a free slot for a task, an idle device
takes it before a busy one, and the device that has been free for longest before the others. A task therefore waits only while each device
that can run it has earlier tasks to run, and a disconnected device delays only the tasks that require it.

**Memory.** Each requirement has one `RequirementQueue`, which claims the first few tasks, and leaves the others in the database. A device
compares the first tasks of all queues that it serves. If the first of them is not claimed yet, the device waits until it is, and
takes no later task before it.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.device_slots import DeviceSlots, DeviceState
from galaxy_trio.daemon.requirement_queue import NONE, RequirementQueue
from galaxy_trio.daemon.store.records import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest

MAX_QUEUES: Final = 1_000
"""Maximum different requirements of queued tasks, not counting those that name a device."""
_MAX_EMPTY_QUEUES: Final = 100
"""Queues, in addition to one for each device, above which the empty ones are dropped."""


class Scheduler:
    """Assigns queued tasks to free slots.

    Report each change of a device or a task, then call `take` for the tasks to start and `check` for the queues to read or to fail.

    Args:
        max_running: Slots of all devices that may be in use at the same time; `None` for no limit.
    """

    def __init__(self, max_running: int | None = None) -> None:
        self._max_running = math.inf if max_running is None else max_running
        self._taken = 0
        self._devices: dict[str, DeviceSlots] = {}
        # Devices with a free slot, in the order in which they became free.
        self._idle: dict[str, DeviceSlots] = {}
        self._partly_busy: dict[str, DeviceSlots] = {}
        self._queues: dict[Requirement, RequirementQueue] = {}
        # The queues whose tasks name no device.
        self._shared: dict[Requirement, RequirementQueue] = {}
        # Ordered sets of the queues that have changed since the last `take`, and since the last `check`.
        self._to_take: dict[RequirementQueue, None] = {}
        self._to_check: dict[RequirementQueue, None] = {}
        self.queued: int = 0
        """The number of queued tasks, claimed or free."""

    @property
    def queues(self) -> Mapping[Requirement, RequirementQueue]:
        """All queues, by the requirement of their tasks."""
        return self._queues

    @property
    def devices(self) -> Mapping[str, DeviceSlots]:
        """All devices, by name."""
        return self._devices

    @property
    def in_memory(self) -> int:
        """How many queued tasks are in memory."""
        return sum(queue.in_memory for queue in self._queues.values())

    def queued_for(self, device_id: str) -> int:
        """How many queued tasks name a device."""
        queue = self._queues.get(Requirement(device_id))
        return 0 if queue is None else queue.queued

    def add_device(self, device_id: str, size: int, state: DeviceState) -> DeviceSlots:
        """Add a device. An earlier one of the same name must have been removed."""
        slots = self._devices[device_id] = DeviceSlots(device_id, size, state)
        self._match_all(slots)
        self._set_free(slots)
        return slots

    def change_device(self, slots: DeviceSlots, state: DeviceState) -> None:
        """Set the state of a device that has connected, disconnected or sent information."""
        if slots.state == state:
            return
        slots.state = state
        self._match_all(slots)
        self._set_free(slots)

    def remove_device(self, slots: DeviceSlots) -> None:
        """Remove a device. Its slots that are in use still have to be released."""
        del self._devices[slots.device_id]
        slots.state = DeviceState(connected=False, usable=False, known=True, os=None, capabilities=frozenset())
        self._match_all(slots)
        self._set_free(slots)

    def release(self, slots: DeviceSlots) -> None:
        """Free the slot of a task that `take` returned."""
        slots.taken -= 1
        self._taken -= 1
        self._set_free(slots)

    def _set_free(self, slots: DeviceSlots) -> None:
        """Move a device to the end of the idle or partly busy ones, or remove it from both if it has no free slot."""
        for free in (self._idle, self._partly_busy):
            if free.get(slots.device_id) is slots:
                del free[slots.device_id]
        if slots.has_room:
            (self._partly_busy if slots.taken else self._idle)[slots.device_id] = slots
            self._to_take.update(dict.fromkeys(queue for queue in slots.queues.values() if queue.next_rank < NONE))

    def _match_all(self, slots: DeviceSlots) -> None:
        own = self._queues.get(Requirement(slots.device_id))
        for queue in (*self._shared.values(), *(() if own is None else (own,))):
            self._match(slots, queue)

    def _match(self, slots: DeviceSlots, queue: RequirementQueue) -> None:
        """Update whether a device serves a queue, and whether the queue's tasks may wait for the device."""
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

    def has_queue_for(self, requirement: Requirement) -> bool:
        """Whether a task with this requirement can be accepted: the number of different requirements is limited."""
        if requirement.device is not None or requirement in self._shared or len(self._shared) < MAX_QUEUES:
            return True
        return sum(queue.queued > 0 for queue in self._shared.values()) < MAX_QUEUES

    def load(self, requirement: Requirement, queued: int) -> None:
        """Add a queue for tasks that an earlier daemon left on disk."""
        self.queued += queued
        self._add_queue(RequirementQueue(requirement, queued))

    def accept(self, record: TaskRecord) -> None:
        """Add a task that was accepted."""
        self.queued += 1
        queue = self._queue_of(record.asked)
        queue.accept(record)
        self._touch(queue)

    def may_claim(self, request: TaskRequest) -> bool:
        """Whether a task that is accepted now should be claimed with its acceptance."""
        return self._queue_of(request).has_room_for(request.priority)

    def add_claimed(self, queue: RequirementQueue, records: list[TaskRecord], *, is_last: bool) -> None:
        """Add tasks of a queue that were claimed."""
        queue.add_claimed(records, is_last=is_last)
        self._touch(queue)
        # Devices may have been waiting for them to compare the first tasks of their queues.
        for slots in chain(self._idle.values(), self._partly_busy.values()):
            if queue.requirement in slots.queues:
                self._to_take.update(dict.fromkeys(slots.queues.values()))

    def returned(self, queue: RequirementQueue) -> None:
        """Report that the surplus of a queue is free."""
        queue.returned()
        self._to_check[queue] = None

    def put_back(self, record: TaskRecord) -> None:
        """Return a task that could not begin to its place in its queue."""
        queue = self._queues[record.asked.requirement]
        queue.put_back(record)
        self._touch(queue)

    def requeue(self, record: TaskRecord) -> None:
        """Count a running task as queued again; `put_back` returns it to its queue."""
        self.queued += 1
        self._queue_of(record.asked).queued += 1

    def _queue_of(self, request: TaskRequest) -> RequirementQueue:
        requirement = request.requirement
        return self._queues.get(requirement) or self._add_queue(RequirementQueue(requirement))

    def begun(self, record: TaskRecord) -> None:
        """Count a task as running."""
        self._count_down(record)

    def withdraw(self, record: TaskRecord) -> None:
        """Remove a task that ended before it began."""
        queue = self._count_down(record)
        queue.discard(record)
        self._to_check[queue] = None

    def _count_down(self, record: TaskRecord) -> RequirementQueue:
        self.queued -= 1
        queue = self._queues[record.asked.requirement]
        queue.queued -= 1
        return queue

    def _touch(self, queue: RequirementQueue) -> None:
        self._to_take[queue] = None
        self._to_check[queue] = None

    def _add_queue(self, queue: RequirementQueue) -> RequirementQueue:
        if len(self._queues) >= _MAX_EMPTY_QUEUES + len(self._devices):
            self._drop_empty_queues()
        self._queues[queue.requirement] = queue
        if queue.requirement.device is None:
            self._shared[queue.requirement] = queue
        for slots in self._devices_for(queue):
            self._match(slots, queue)
        self._touch(queue)
        return queue

    def _devices_for(self, queue: RequirementQueue) -> list[DeviceSlots]:
        """The device that the queue's tasks name, or all devices."""
        if queue.requirement.device is None:
            return list(self._devices.values())
        slots = self._devices.get(queue.requirement.device)
        return [] if slots is None else [slots]

    def _drop_empty_queues(self) -> None:
        for queue in [queue for queue in self._queues.values() if not queue.queued and not queue.claiming]:
            del self._queues[queue.requirement]
            self._shared.pop(queue.requirement, None)
            self._to_take.pop(queue, None)
            self._to_check.pop(queue, None)
            for slots in self._devices_for(queue):
                slots.queues.pop(queue.requirement, None)

    def take(self) -> Iterator[tuple[TaskRecord, DeviceSlots]]:
        """Assign slots to the tasks that can begin now, and yield each task with its device's slots; the caller starts it."""
        while self._to_take and self._taken < self._max_running:
            queue = min(self._to_take, key=lambda queue: queue.next_rank)
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

    def _free_slots_for(self, queue: RequirementQueue) -> DeviceSlots | None:
        """A device that can take the first task of a queue. Devices with an earlier task, claimed or free, are left out."""
        if queue.requirement.device is not None:
            slots = self._devices.get(queue.requirement.device)
            return slots if slots is not None and slots.has_room and slots.first() is queue else None
        for slots in chain(self._idle.values(), self._partly_busy.values()):
            if queue.requirement in slots.queues and slots.first() is queue:
                return slots
        return None

    def check(self, *, may_fail: bool = True) -> tuple[list[RequirementQueue], list[RequirementQueue]]:
        """Return the queues for which the caller has to claim tasks, and those whose tasks it has to fail because no device can run them.

        The former are marked as `claiming`, the latter as `failing`.

        Args:
            may_fail: If `False`, the second list is empty; call `check_all` later to have these queues checked again.
        """
        to_claim = [queue for queue in self._to_check if queue.wants_claim]
        to_fail = [queue for queue in self._to_check if may_fail and queue.has_no_candidate and not queue.failing]
        self._to_check.clear()
        for queue in to_claim:
            queue.claiming = True
        for queue in to_fail:
            queue.failing = True
        return to_claim, to_fail

    def take_surplus(self) -> list[tuple[RequirementQueue, list[TaskRecord]]]:
        """Remove the claimed tasks for which there is no room. Call it before `check`; free them, and report it to `returned`."""
        surplus = [(queue, queue.take_surplus()) for queue in self._to_check]
        return [(queue, records) for queue, records in surplus if records]

    def check_all(self) -> None:
        """Check all queues at the next `check`."""
        self._to_check.update(dict.fromkeys(self._queues.values()))
