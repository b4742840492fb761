"""The scheduler for tasks that any device may run: an idle device first, otherwise the one with the shortest queue.

A place in a device's queue is provisional. A task moves to another device when its own has left, or when another one that fits has room.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio._counted import counted
from galaxy_trio.constellation.slots import PlaceMoved, next_turn
from galaxy_trio.errors import NoSuchDevice, QueueFull
from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.requirements import Requirements
    from galaxy_trio.constellation.slots import Place, Slot
    from galaxy_trio.constellation.task import Task


class Waiter:
    """A call that waits for a slot on any device that fits.

    Attributes:
        turn: The number of the call in the order in which calls began to wait.
        device: The device in whose queue the call waits, if any.
        candidate: A device that fits, or may fit once more is known of it. The call waits while there is one.
    """

    def __init__(self, requirements: Requirements, task: Task | None, candidate: Device) -> None:
        self.requirements = requirements
        self.turn: int = next_turn() if task is None else task.turn
        self._task = task
        self.candidate: Device = candidate
        self.device: Device | None = None
        self._place: Place | None = None
        self._assigned = trio.Event()
        self._error: Exception | None = None

    @property
    def can_move(self) -> bool:
        """Whether the call still waits for its slot."""
        return self._error is None and (self._place is None or self._place.waiting)

    @property
    def unassigned(self) -> bool:
        """Whether the call waits in no device's queue."""
        return self.device is None and self._error is None

    async def wait(self) -> tuple[Device, Slot]:
        """Wait for a slot on any device."""
        while True:
            if self._error is not None:
                raise self._error
            if self.device is None or self._place is None:
                self._assigned = trio.Event()
                await self._assigned.wait()
                continue
            device = self.device
            try:
                return device, await self._place.wait()
            except PlaceMoved:
                pass

    def assign(self, device: Device | None) -> None:
        """Move to the queue of this device; to no queue for None.

        Raises:
            QueueFull: The device's queue is full. Nothing has changed.
        """
        place = None if device is None else device._enter_queue(self._task)
        previous, self._place, self.device = self._place, place, device
        self.candidate = device or self.candidate
        if previous is not None:
            previous.move()
        self._assigned.set()

    def fail(self, error: Exception) -> None:
        """Raise this error in the call."""
        self._error = error
        self.assign(None)

    def leave(self) -> None:
        """Leave the queue: the call has ended."""
        if self._place is not None:
            self._place.leave()


class Scheduler:
    """The calls that wait for any device that fits, in the order in which they began to wait.

    Args:
        devices: The devices by id. The constellation adds and removes them.
        max_queued: Calls that may wait while no device that fits is connected.
    """

    def __init__(self, devices: Mapping[str, Device], max_queued: int) -> None:
        self._devices = devices
        self._max_queued = max_queued
        self._waiters: dict[Waiter, None] = {}
        self._changed: dict[Device, None] = {}
        self._rechecked: dict[Device, None] = {}
        # Whether calls wait in no queue because the queues of all devices that fit were full. They precede calls that come later.
        self._has_overflow = False
        self._settling = False

    @property
    def unassigned(self) -> int:
        """The number of calls that wait in no device's queue."""
        return sum(waiter.unassigned for waiter in self._waiters)

    def takes_now(self, device_id: str | None, requirements: Requirements) -> bool:
        """Whether a task for a device, or for any that fits, would not have to wait in a queue."""
        if device_id is not None:
            device = self._devices.get(device_id)
            return device is not None and device._has_room
        return any(device._has_room and requirements.fit(device.profile) for device in self._devices.values())

    def enter(self, requirements: Requirements, task: Task | None) -> Waiter:
        """Begin to wait for a device. `wait` must follow.

        Raises:
            NoSuchDevice: No device fits, or may fit later.
            QueueFull: Too many calls wait already.
        """
        candidate = self._find_candidate(requirements)
        if candidate is None:
            raise NoSuchDevice(f"no device for this task: {_missing(requirements, self._devices.values())}")
        waiter = Waiter(requirements, task, candidate)
        had_slot = task is not None and task.had_slot
        device = self._choose(requirements)
        if device is not None:
            waiter.assign(device)
        elif self.unassigned >= self._max_queued and not had_slot:
            raise QueueFull(
                f"the queue for devices to connect is full, with {counted(self._max_queued, 'task')}: this one was not taken; "
                "wait for some to end, or raise max_queued"
            )
        self._waiters[waiter] = None
        if had_slot:
            for later in [other for other in self._waiters if other.turn > waiter.turn]:
                # To the end, behind the new one, in the same order.
                self._waiters[later] = self._waiters.pop(later)
        return waiter

    async def wait(self, waiter: Waiter) -> tuple[Device, Slot]:
        """Wait for a slot on any device. Cancelling leaves the queue.

        Raises:
            Exception: No device fits any more, or the constellation was closed.
        """
        try:
            return await waiter.wait()
        finally:
            del self._waiters[waiter]
            waiter.leave()

    def _choose(self, requirements: Requirements) -> Device | None:
        fitting = [
            device for device in self._devices.values() if device._takes_now and requirements.fit(device.profile)
        ]
        return min(fitting, key=lambda device: device._slots.load, default=None)

    def _find_candidate(self, requirements: Requirements) -> Device | None:
        """Find a device that fits, or may fit later, whether it is connected or not."""
        return next((device for device in self._devices.values() if _is_candidate(device, requirements)), None)

    # Changes of a device.

    def reconsider(self, device: Device) -> None:
        """Handle a device that has more room, or accepts no tasks any more. Call this whenever either may be the case; never blocks."""
        if self._waiters:
            self._changed[device] = None
            self._settle()

    def recheck(self, device: Device) -> None:
        """Handle a device that connected, sent its information, was given up or removed: it may fit other calls now. Never blocks."""
        if self._waiters:
            self._rechecked[device] = None
            self._settle()

    def _settle(self) -> None:
        # Handling one change causes others: they are handled after it.
        if self._settling:
            return
        self._settling = True
        try:
            while self._changed or self._rechecked:
                if self._changed:
                    self._reconsider(_pop_first(self._changed))
                else:
                    self._recheck(_pop_first(self._rechecked))
        finally:
            self._settling = False

    def _reconsider(self, device: Device) -> None:
        if not device._takes_now:
            for waiter in self._waiters:
                if waiter.device is device and waiter.can_move:
                    self._reassign(waiter)
        if self._has_overflow and device._takes_now:
            self._recheck(device)
            self._has_overflow = self.unassigned > 0
        while device._has_room:
            first = next((waiter for waiter in self._waiters if self._could_use(waiter, device)), None)
            if first is None:
                break
            first.assign(device)

    def _could_use(self, waiter: Waiter, device: Device) -> bool:
        if not waiter.can_move:
            return False
        try:
            return waiter.requirements.fit(device.profile)
        except Exception as error:  # noqa: BLE001  # the caller's `where` raised it
            waiter.fail(error)
            return False

    def _reassign(self, waiter: Waiter) -> None:
        with _failing(waiter):
            try:
                waiter.assign(self._choose(waiter.requirements))
            except QueueFull:
                self._has_overflow = True
                waiter.assign(None)

    def _recheck(self, device: Device) -> None:
        has_places = device._takes_now
        for waiter in self._waiters:
            with _failing(waiter):
                if waiter.device is device and waiter.can_move and not waiter.requirements.fit(device.profile):
                    # Its information has arrived, and it does not fit.
                    self._reassign(waiter)
                if not waiter.unassigned:
                    continue
                if has_places and waiter.requirements.fit(device.profile):
                    try:
                        waiter.assign(device)
                    except QueueFull:
                        has_places = False
                        self._has_overflow = True
                elif waiter.candidate is device and not _is_candidate(device, waiter.requirements):
                    self._replace_candidate(waiter)

    def _replace_candidate(self, waiter: Waiter) -> None:
        candidate = self._find_candidate(waiter.requirements)
        if candidate is None:
            missing = _missing(waiter.requirements, self._devices.values())
            waiter.fail(NoSuchDevice(f"no device for this task any more: {missing}"))
        else:
            waiter.candidate = candidate

    def close(self, error: Callable[[], Exception]) -> None:
        """Raise an error in each call that waits."""
        for waiter in self._waiters:
            if waiter.can_move:
                waiter.fail(error())


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


@contextmanager
def _failing(waiter: Waiter) -> Generator[None]:
    """Raise what the caller's `where` raises in that call, and in no other."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # the caller's `where` raised it
        waiter.fail(error)
