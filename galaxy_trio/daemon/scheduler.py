"""Assigns queued tasks to devices. It is pure: without a clock, a connection or a database.

**The rule.** Tasks are queued by priority, then in the order of acceptance. A device with a free slot takes the first queued task that it
can run, whether the task names this device or accepts any device that fits. If several devices have a free slot for a task, an idle device
takes it before a busy one, and the device that has been free for longest before the others. A task therefore waits only while each device
that can run it has earlier tasks to run, and a disconnected device delays only the tasks that require it.

**Claims.** Each requirement has one `RequirementQueue`, which claims the first few tasks and leaves the others in the database, where other
daemons may claim them. A device compares the first tasks of all queues that it serves. If the first of them is not claimed yet, the device
waits for the claim, and takes no later task before it.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import chain, count
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
"""Queues, in addition to one for each device, above which the empty ones are dropped, each time that the number of queues has doubled."""


class Scheduler:
    """Assigns queued tasks to free slots.

    Report each change of a device or a task, then call `take` for the tasks to start and `check` for the queues whose claims to change
    or whose tasks to fail.

    Args:
        max_running: Slots of all devices that may be in use at the same time; `None` for no limit.
        is_alone: Whether no other daemon has devices. Otherwise tasks that name no device are claimed only for slots that are free.
    """

    def __init__(self, max_running: int | None = None, *, is_alone: bool = True) -> None:
        self._is_alone = is_alone
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
        # The queues that the last look for empty ones has left.
        self._not_dropped = 0
        self.queued: int = 0
        """The number of queued tasks, of all daemons."""

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
        """Let a device have tasks as far as it has free slots."""
        self._move(slots)
        if slots.has_room:
            self._to_take.update(dict.fromkeys(queue for queue in slots.queues.values() if queue.next_rank < NONE))

    def _move(self, slots: DeviceSlots) -> None:
        """Move a device to the end of the idle or partly busy ones, or remove it from both if it has no free slot."""
        for free in (self._idle, self._partly_busy):
            if free.get(slots.device_id) is slots:
                del free[slots.device_id]
        if slots.has_room:
            (self._partly_busy if slots.taken else self._idle)[slots.device_id] = slots

    def _free(self) -> Iterator[DeviceSlots]:
        """The devices with a free slot, in the order in which they take tasks."""
        return chain(self._idle.values(), self._partly_busy.values())

    def _with_tasks(self) -> list[RequirementQueue]:
        """The queues that are not known to have no task to take."""
        return [queue for queue in self._queues.values() if queue.next_rank < NONE]

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

    def load(self, counts: Mapping[Requirement, int]) -> None:
        """Set the number of queued tasks with each requirement. Those that are not claimed here may be free, and come first."""
        self.queued = sum(counts.values())
        for requirement, queue in self._queues.items():
            queue.load(counts.get(requirement, 0))
        for requirement in [requirement for requirement in counts if requirement not in self._queues]:
            self._add_queue(RequirementQueue(requirement, counts[requirement]))
        self.check_all()

    def may_claim(self, request: TaskRequest) -> bool:
        """Whether a task that is accepted now should be claimed with its acceptance."""
        queue = self._queue_of(request)
        if queue.free_slots is None:
            return queue.has_room_for(request.priority)
        return not queue.in_memory and self._has_free_slot_for(queue, request.priority)

    def _has_free_slot_for(self, queue: RequirementQueue, priority: int) -> bool:
        """Whether a free slot of a device has no earlier task to take than a new one of this priority."""
        for slots in self._free():
            if queue.requirement in slots.queues:
                first = slots.first()
                if first is None or first.next_rank[0] > -priority:
                    return True
        return False

    def accept(self, record: TaskRecord, *, claimed: bool) -> None:
        """Add a task that was accepted here, `claimed` or free."""
        self.queued += 1
        queue = self._queue_of(record.asked)
        queue.queued += 1
        if claimed:
            queue.put(record)
        else:
            queue.set_free(record.rank)
        self._touch(queue)

    def add_claimed(self, queue: RequirementQueue, records: list[TaskRecord], *, is_last: bool) -> None:
        """Add the first of the free tasks of a queue, which were claimed; the last ones, if no others are free."""
        queue.add_claimed(records, is_last=is_last)
        self._touch(queue)
        # Devices may have been waiting for this claim to compare the first tasks of their queues.
        if any(queue.requirement in slots.queues for slots in self._free()):
            self._to_take.update(dict.fromkeys(self._with_tasks()))

    def end_change(self, queue: RequirementQueue) -> None:
        """Report that the claims of a queue are no longer being changed."""
        queue.end_change()
        self._to_check[queue] = None

    def look_for_free(self) -> None:
        """Assume that the queued tasks that are not claimed here are free."""
        for queue in self._queues.values():
            queue.look_for_free()
            self._to_check[queue] = None

    def put_back(self, record: TaskRecord) -> None:
        """Return a claimed task that could not begin to its place in its queue."""
        queue = self._queue_of(record.asked)
        queue.put(record)
        self._touch(queue)

    def report_free(self, record: TaskRecord) -> None:
        """Report that a queued task that is not claimed here may be free."""
        queue = self._queue_of(record.asked)
        queue.report_free(record.rank)
        self._touch(queue)

    def requeue(self, record: TaskRecord) -> None:
        """Count a task as queued that was running, or was accepted by another daemon; `put_back` or `report_free` adds it to its queue."""
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
        queue = self._queue_of(record.asked)
        queue.queued -= 1
        return queue

    def _touch(self, queue: RequirementQueue) -> None:
        self._to_take[queue] = None
        self._to_check[queue] = None

    def _add_queue(self, queue: RequirementQueue) -> RequirementQueue:
        # A look at all queues for each new one would take a time that grows with the square of their number.
        if len(self._queues) >= max(_MAX_EMPTY_QUEUES + len(self._devices), 2 * self._not_dropped):
            self._drop_empty_queues()
            self._not_dropped = len(self._queues)
        self._queues[queue.requirement] = queue
        if queue.requirement.device is None:
            self._shared[queue.requirement] = queue
            queue.free_slots = None if self._is_alone else 0
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
        # A claimed task may not have been counted yet, if another daemon has accepted it.
        for queue in [
            queue for queue in self._queues.values() if queue.queued <= 0 and not queue.in_memory and not queue.changing
        ]:
            del self._queues[queue.requirement]
            self._shared.pop(queue.requirement, None)
            self._to_take.pop(queue, None)
            self._to_check.pop(queue, None)
            for slots in self._devices_for(queue):
                slots.queues.pop(queue.requirement, None)

    def take(self) -> list[tuple[TaskRecord, DeviceSlots]]:
        """Assign slots to the tasks that can begin now. Returns each task with its device's slots; the caller starts them."""
        taken: list[tuple[TaskRecord, DeviceSlots]] = []
        order = count()
        heap = [(queue.next_rank, next(order), queue) for queue in self._to_take]
        heapify(heap)
        # The first queue of each device that was asked for: to find it takes a look at all queues of the device.
        firsts: dict[DeviceSlots, RequirementQueue | None] = {}
        while heap and self._taken < self._max_running:
            _, _, queue = heappop(heap)
            slots = None if queue.first is None else self._free_slots_for(queue, firsts)
            if slots is None:
                continue
            taken.append((queue.take(), slots))
            slots.taken += 1
            self._taken += 1
            self._move(slots)
            self._to_check[queue] = None
            firsts = {other: first for other, first in firsts.items() if first is not queue}
            heappush(heap, (queue.next_rank, next(order), queue))
        self._to_take = dict.fromkeys(queue for _, _, queue in heap)
        return taken

    def _free_slots_for(
        self, queue: RequirementQueue, firsts: dict[DeviceSlots, RequirementQueue | None]
    ) -> DeviceSlots | None:
        """A device that can take the first task of a queue. Devices with an earlier task, claimed or free, are left out."""

        def takes(slots: DeviceSlots) -> bool:
            if slots not in firsts:
                firsts[slots] = slots.first()
            return firsts[slots] is queue

        if queue.requirement.device is not None:
            slots = self._devices.get(queue.requirement.device)
            return slots if slots is not None and slots.has_room and takes(slots) else None
        return next((slots for slots in self._free() if queue.requirement in slots.queues and takes(slots)), None)

    def check(self, *, may_fail: bool = True) -> tuple[list[RequirementQueue], list[RequirementQueue]]:
        """Return the queues whose claims the caller has to change, and those whose tasks it has to fail because no device can run them.

        The former are marked as `changing`, the latter as `failing`.

        Args:
            may_fail: If `False`, the second list is empty; call `check_all` later to have these queues checked again.
        """
        if not self._is_alone:
            self._share_free_slots()
        to_change = [queue for queue in self._to_check if queue.wants_change]
        to_fail = [queue for queue in self._to_check if may_fail and queue.has_no_candidate and not queue.failing]
        self._to_check.clear()
        for queue in to_change:
            queue.changing = True
        for queue in to_fail:
            queue.failing = True
        return to_change, to_fail

    def _share_free_slots(self) -> None:
        """Count the free slots for each queue whose tasks name no device."""
        free = dict.fromkeys((queue for queue in self._shared.values() if queue.next_rank < NONE), 0)
        if free:
            in_order = sorted(self._with_tasks(), key=lambda queue: queue.next_rank)
            for slots in self._free():
                first = next((queue for queue in in_order if queue.requirement in slots.queues), None)
                if first in free:
                    free[first] += slots.size - slots.taken
        for queue in self._shared.values():
            count = free.get(queue, 0)
            if queue.free_slots != count:
                queue.free_slots = count
                self._to_check[queue] = None

    def check_all(self) -> None:
        """Check all queues at the next `check`."""
        self._to_check.update(dict.fromkeys(self._queues.values()))
