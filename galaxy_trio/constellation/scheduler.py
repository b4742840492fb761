"""The scheduler for tasks that any device may run: an idle device first, otherwise the one with the shortest queue.

A place in a device's queue is provisional. A task moves to another device when its own has left, when another one that fits has room, or
when another one that fits would run a task of a lower priority.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from galaxy_trio._counted import counted
from galaxy_trio.constellation.grants import Grants
from galaxy_trio.constellation.ranked_queue import RankedQueue, has_higher_priority
from galaxy_trio.constellation.waiter import Waiter
from galaxy_trio.errors import NoSuchDevice, QueueFull
from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Hashable, Mapping

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.ranked_queue import Rank
    from galaxy_trio.constellation.requirements import Requirements
    from galaxy_trio.constellation.slots import Slot, Slots, TaskLimit
    from galaxy_trio.constellation.task import Task


@attrs.frozen(eq=False)
class _Group:
    """The waiting calls with the same requirements: a device fits all of them, or none.

    Attributes:
        waiting: The calls.
        unassigned: Those of them that wait in no device's queue.
    """

    waiting: RankedQueue[Waiter] = attrs.field(factory=RankedQueue[Waiter])
    unassigned: RankedQueue[Waiter] = attrs.field(factory=RankedQueue[Waiter])


class Scheduler:
    """The calls that wait for any device that fits, and the grants of slots to all calls.

    Args:
        devices: The devices by id. The constellation adds and removes them.
        limit: Counts the slots in use on all devices together.
        max_queued: Calls that may wait while no device that fits is connected.
    """

    def __init__(self, devices: Mapping[str, Device], limit: TaskLimit, max_queued: int) -> None:
        self._devices = devices
        self._max_queued = max_queued
        self._grants = Grants(limit, self._bring)
        # Calls that were granted a slot leave this queue, and those of the groups, when they are the first.
        self._waiting = RankedQueue[Waiter]()
        self._groups: dict[Hashable, _Group] = {}
        self._in_queue_of: dict[Device, dict[Waiter, None]] = {}
        self._unassigned = 0
        self._changed: dict[Device, None] = {}
        self._rechecked: dict[Device, None] = {}
        # Whether calls wait in no queue because the queues of all devices that fit were full. They precede calls that come later.
        self._has_overflow = False
        self._settling = False

    @property
    def unassigned(self) -> int:
        """The number of calls that wait in no device's queue."""
        return self._unassigned

    def find_free(self, device_id: str | None, requirements: Requirements, promised: Mapping[str, int]) -> str | None:
        """Find the device on which a task would get a slot now: a given one, or the best one that fits.

        Args:
            device_id: The device; None for any.
            requirements: The requirements, if it is any.
            promised: How many slots of each device others are about to take.
        """

        def load(device: Device) -> tuple[bool, int, int]:
            taken = promised.get(device.device_id, 0)
            busy, waiting, idle_since = _load(device)
            return busy or taken > 0, waiting + taken, idle_since

        if device_id is not None:
            only = self._devices.get(device_id)
            return None if only is None or not only._has_room(promised.get(device_id, 0)) else device_id
        free = [
            device
            for device in self._devices.values()
            if device._has_room(promised.get(device.device_id, 0)) and requirements.fit(device.profile)
        ]
        return min(free, key=load).device_id if free else None

    def enter(self, requirements: Requirements, rank: Rank, task: Task | None) -> Waiter:
        """Begin to wait for a device. `wait` must follow.

        Args:
            requirements: The requirements.
            rank: The place of the call among all calls.
            task: The task, unless the call reserves a slot.

        Raises:
            NoSuchDevice: No device fits, or may fit later.
            QueueFull: Too many calls wait already.
        """
        candidate = self._find_candidate(requirements)
        if candidate is None:
            raise NoSuchDevice(f"no device for this task: {_missing(requirements, self._devices.values())}")
        waiter = Waiter(requirements, rank, task, candidate)
        device = self._choose(requirements)
        if device is not None:
            waiter.assign(device)
        elif self._unassigned >= self._max_queued and not (task is not None and task.had_slot):
            raise QueueFull(
                f"the queue for devices to connect is full, with {counted(self._max_queued, 'task')}: this one was not taken; "
                "wait for some to end, or raise max_queued"
            )
        if waiter.can_move:
            self._remember(waiter)
        return waiter

    async def wait(self, waiter: Waiter) -> tuple[Device, Slot]:
        """Wait for a slot on any device. Cancelling leaves the queue.

        Raises:
            Exception: No device fits any more, or the constellation was closed.
        """
        try:
            return await waiter.wait()
        finally:
            self._forget(waiter)
            waiter.leave()

    # The calls that wait, in the tables.

    def _remember(self, waiter: Waiter) -> None:
        key = waiter.requirements.key
        if key not in self._groups:
            self._groups[key] = _Group()
        self._groups[key].waiting.add(waiter.rank, waiter)
        self._waiting.add(waiter.rank, waiter)
        self._add_to_queue(waiter)

    def _add_to_queue(self, waiter: Waiter) -> None:
        if waiter.device is not None:
            self._in_queue_of.setdefault(waiter.device, {})[waiter] = None
        else:
            self._unassigned += 1
            self._groups[waiter.requirements.key].unassigned.add(waiter.rank, waiter)

    def _remove_from_queue(self, waiter: Waiter) -> None:
        if waiter.device is not None:
            waiters = self._in_queue_of.get(waiter.device, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._in_queue_of.pop(waiter.device, None)
        elif waiter.unassigned:
            self._unassigned -= 1
            self._groups[waiter.requirements.key].unassigned.discard(waiter.rank, waiter)

    def _move(self, waiter: Waiter, device: Device | None, *, may_refuse: bool = True) -> None:
        """Move a call to the queue of this device; to no queue for None.

        Raises:
            QueueFull: The device's queue is full. Nothing has changed.
        """
        self._remove_from_queue(waiter)
        try:
            waiter.assign(device, may_refuse=may_refuse)
        finally:
            self._add_to_queue(waiter)

    def _fail(self, waiter: Waiter, error: Exception) -> None:
        self._remove_from_queue(waiter)
        waiter.fail(error)

    def _forget(self, waiter: Waiter) -> None:
        self._remove_from_queue(waiter)
        self._waiting.discard(waiter.rank, waiter)
        group = self._groups.get(waiter.requirements.key)
        if group is not None:
            group.waiting.discard(waiter.rank, waiter)
            if not group.waiting:
                del self._groups[waiter.requirements.key]

    def _choose(self, requirements: Requirements) -> Device | None:
        fitting = [
            device for device in self._devices.values() if device._takes_now and requirements.fit(device.profile)
        ]
        return min(fitting, key=_load, default=None)

    def _find_candidate(self, requirements: Requirements) -> Device | None:
        """Find a device that fits, or may fit later, whether it is connected or not."""
        return next((device for device in self._devices.values() if _is_candidate(device, requirements)), None)

    # Changes of a device.

    def reconsider(self, device: Device) -> None:
        """Handle a change of a device's slots, queue, status or information, and grant slots. Never blocks."""
        self._grants.update(device._slots)
        if self._groups:
            self._changed[device] = None
        self._settle()

    def recheck(self, device: Device) -> None:
        """Handle a device that connected, sent its information, was given up or removed: it may fit other calls now. Never blocks."""
        if self._groups:
            self._rechecked[device] = None
        self.reconsider(device)

    def _settle(self) -> None:
        # Handling one change causes others: they are handled after it.
        if self._settling:
            return
        self._settling = True
        try:
            while True:
                if self._changed:
                    self._reconsider(_pop_first(self._changed))
                elif self._rechecked:
                    self._recheck(_pop_first(self._rechecked))
                elif (slots := self._grants.grant_next()) is not None:
                    if self._has_overflow:
                        # Its queue has a place now.
                        self._changed[self._devices[slots.device_id]] = None
                elif not self._changed:
                    return
        finally:
            self._settling = False

    def _reconsider(self, device: Device) -> None:
        if not device._takes_now:
            for waiter in self._in_queue(device):
                self._reassign(waiter)
        elif self._has_overflow:
            self._fill_queue(device)
            self._has_overflow = self._unassigned > 0

    def _in_queue(self, device: Device) -> list[Waiter]:
        waiters = self._in_queue_of.get(device, ())
        return sorted((waiter for waiter in waiters if waiter.can_move), key=lambda waiter: waiter.rank)

    def _reassign(self, waiter: Waiter) -> None:
        with self._failing(waiter):
            try:
                self._move(waiter, self._choose(waiter.requirements))
            except QueueFull:
                self._has_overflow = True
                self._move(waiter, None)

    def _recheck(self, device: Device) -> None:
        for waiter in self._in_queue(device):
            # Its information may have arrived.
            with self._failing(waiter):
                if not waiter.requirements.fit(device.profile):
                    self._reassign(waiter)
        if device._takes_now:
            self._fill_queue(device)
        for group in self._groups.values():
            for waiter in group.unassigned:
                if waiter.candidate is device:
                    self._check_candidate(waiter)

    def _check_candidate(self, waiter: Waiter) -> None:
        with self._failing(waiter):
            if _is_candidate(waiter.candidate, waiter.requirements):
                return
            candidate = self._find_candidate(waiter.requirements)
            if candidate is None:
                missing = _missing(waiter.requirements, self._devices.values())
                self._fail(waiter, NoSuchDevice(f"no device for this task any more: {missing}"))
            else:
                waiter.candidate = candidate

    def _fill_queue(self, device: Device) -> None:
        """Let calls that wait in no queue enter the queue of a device, as far as there are places."""
        queue: list[tuple[Rank, Waiter, _Group]] = []

        def push_first(group: _Group) -> None:
            waiter = group.unassigned.first
            if waiter is not None:
                heapq.heappush(queue, (waiter.rank, waiter, group))

        for group in self._groups.values():
            if group.unassigned and self._fits(group, device):
                push_first(group)
        while queue:
            _, waiter, group = heapq.heappop(queue)
            try:
                self._move(waiter, device)
            except QueueFull:
                self._has_overflow = True
                return
            push_first(group)

    def _bring(self, rank: Rank | None, free: Collection[Slots]) -> Slots | None:
        """Move the first call with a higher priority that fits one of these devices to the queue of the device.

        Args:
            rank: The rank of the call that is next otherwise; None without such a call.
            free: Devices with a free slot.

        Returns:
            The device; None if there is no such call.
        """
        if not self._groups:
            return None
        first = _first_of(self._waiting)
        if first is None or not has_higher_priority(first.rank, rank):
            return None
        firsts = [(first.rank, group) for group in self._groups.values() if (first := _first_of(group.waiting))]
        devices = [self._devices[slots.device_id] for slots in free]
        for _, group in sorted(firsts):
            fitting = [device for device in devices if device._takes_now and self._fits(group, device)]
            # It may be another one, if `where` raised.
            first = _first_of(group.waiting)
            if fitting and first is not None and has_higher_priority(first.rank, rank):
                device = min(fitting, key=_load)
                self._move(first, device, may_refuse=False)
                return device._slots
        return None

    def _fits(self, group: _Group, device: Device) -> bool:
        """Whether a device fits a group's calls. What the caller's `where` raises is raised in the first of them."""
        while (first := _first_of(group.waiting)) is not None:
            with self._failing(first):
                return first.requirements.fit(device.profile)
        return False

    @contextmanager
    def _failing(self, waiter: Waiter) -> Generator[None]:
        """Raise what the caller's `where` raises in that call, and in no other."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the caller's `where` raised it
            self._fail(waiter, error)

    def close(self, error: Callable[[], Exception]) -> None:
        """Raise an error in each call that waits."""
        for waiter in self._waiting:
            if waiter.can_move:
                self._fail(waiter, error())


def _first_of(waiting: RankedQueue[Waiter]) -> Waiter | None:
    """Return the first call that still waits."""
    while (waiter := waiting.first) is not None and not waiter.can_move:
        waiting.pop()
    return waiter


def _load(device: Device) -> tuple[bool, int, int]:
    return device._slots.load


def _is_candidate(device: Device, requirements: Requirements) -> bool:
    return device._takes_tasks and requirements.could_fit(device.profile)


def _missing(requirements: Requirements, devices: Collection[Device]) -> str:
    """Describe why no device is a candidate."""
    if not devices:
        return "there are no devices"
    unusable = [device for device in devices if requirements.could_fit(device.profile)]
    if unusable:
        return "; ".join(f"{device.device_id!r} would fit, but {_why_unusable(device)}" for device in unusable[:3])
    return requirements.missing([device.profile for device in devices])


def _why_unusable(device: Device) -> str:
    return f"was given up: {device.failure}" if device.status is DeviceStatus.FAILED else "was removed"


def _pop_first(devices: dict[Device, None]) -> Device:
    first = next(iter(devices))
    del devices[first]
    return first
