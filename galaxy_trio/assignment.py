"""Who waits for any device that fits, and which one he is given: an idle one, or the one with the shortest queue, for now.

A place in a device's queue is not for good: when the device leaves, or another that fits has room, it is given up for one there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio.errors import NoSuchDevice, QueueFull
from galaxy_trio.slots import Moved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from galaxy_trio.device import Device
    from galaxy_trio.selection import Requirements
    from galaxy_trio.slots import Place, Slot


class Waiting:
    """Somebody who waits for a device that fits."""

    def __init__(self, requirements: Requirements, task_id: str | None) -> None:
        self.requirements = requirements
        self._task_id = task_id
        self.device: Device | None = None
        self._place: Place | None = None
        self._assigned = trio.Event()
        self._error: Exception | None = None

    @property
    def may_move(self) -> bool:
        """Whether its turn is still to come."""
        return self._error is None and (self._place is None or self._place.waiting)

    async def wait(self) -> tuple[Device, Slot]:
        """Wait for a slot on whichever device."""
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
            except Moved:
                pass

    def assign(self, device: Device | None) -> None:
        """Queue for this device, and no other any more.

        Raises:
            QueueFull: Its queue is full; nothing has changed.
        """
        place = None if device is None else device.queue(self._task_id)
        before, self._place, self.device = self._place, place, device
        if before is not None:
            before.move()
        self._assigned.set()

    def fail(self, error: Exception) -> None:
        """There is no device for it."""
        self._error = error
        self.assign(None)

    def leave(self) -> None:
        """It does not wait any more."""
        if self._place is not None:
            self._place.leave()


class Assignment:
    """All who wait for any device that fits, in the order in which they came.

    Args:
        devices: By name; looked at, and kept by others.
        max_queued: How many may wait while no device that fits is connected.
    """

    def __init__(self, devices: Mapping[str, Device], max_queued: int) -> None:
        self._devices = devices
        self._max_queued = max_queued
        self._waiting: dict[Waiting, None] = {}
        self._changed: dict[Device, None] = {}
        self._reconsidering = False

    @property
    def unassigned(self) -> int:
        """How many wait while no device that fits is connected."""
        return sum(waiting.device is None for waiting in self._waiting)

    @contextmanager
    def queue(self, requirements: Requirements, task_id: str | None) -> Generator[Waiting]:
        """Wait in the block, and nowhere after it.

        Raises:
            NoSuchDevice: No device fits, nor may any.
            QueueFull: Too many wait already.
        """
        missing = requirements.missing(self._devices.values())
        if missing is not None:
            raise NoSuchDevice(f"no device for this task: {missing}")
        waiting = Waiting(requirements, task_id)
        device = self._choose(requirements)
        if device is not None:
            waiting.assign(device)
        elif self.unassigned >= self._max_queued:
            raise QueueFull(f"{self._max_queued} tasks wait for devices to connect already: this one was not taken")
        self._waiting[waiting] = None
        try:
            yield waiting
        finally:
            del self._waiting[waiting]
            waiting.leave()

    def _choose(self, requirements: Requirements) -> Device | None:
        fitting = [device for device in self._devices.values() if device.takes_now and requirements.fit(device)]
        return min(fitting, key=lambda device: device.load, default=None)

    # ---- when something has changed

    def reconsider(self, device: Device) -> None:
        """Something about a device is different now. To be called whenever it is; never blocks."""
        self._changed[device] = None
        if self._reconsidering:
            # By what is done about another change.
            return
        self._reconsidering = True
        try:
            while self._changed:
                changed = next(iter(self._changed))
                del self._changed[changed]
                self._reconsider(changed)
        finally:
            self._reconsidering = False

    def _reconsider(self, device: Device) -> None:
        if not self._waiting:
            return
        if not device.takes_now:
            for waiting in [waiting for waiting in self._waiting if waiting.device is device and waiting.may_move]:
                self._assign_anew(waiting)
        while device.has_room:
            first = next((waiting for waiting in self._waiting if self._could_use(waiting, device)), None)
            if first is None:
                break
            first.assign(device)

    def _could_use(self, waiting: Waiting, device: Device) -> bool:
        if not waiting.may_move:
            return False
        try:
            return waiting.requirements.fit(device)
        except Exception as error:  # noqa: BLE001  # of the caller's own predicate: it is his
            waiting.fail(error)
            return False

    def _assign_anew(self, waiting: Waiting) -> None:
        try:
            waiting.assign(self._choose(waiting.requirements))
        except QueueFull:
            waiting.assign(None)
        except Exception as error:  # noqa: BLE001  # of the caller's own predicate: it is his
            waiting.fail(error)

    def recheck(self) -> None:
        """A device is known better, was given up, or was removed: there may be none any more for some who wait."""
        for waiting in self._waiting:
            if waiting.device is None and waiting.may_move:
                try:
                    missing = waiting.requirements.missing(self._devices.values())
                except Exception as error:  # noqa: BLE001  # of the caller's own predicate: it is his
                    waiting.fail(error)
                else:
                    if missing is not None:
                        waiting.fail(NoSuchDevice(f"no device for this task any more: {missing}"))

    def close(self, error: Callable[[], Exception]) -> None:
        """Nobody gets a device any more."""
        for waiting in self._waiting:
            if waiting.may_move:
                waiting.fail(error())
