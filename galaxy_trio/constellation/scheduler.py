"""Who waits for any device that fits, and which one he is given: an idle one, or the one with the shortest queue, for now.

A place in a device's queue is not for good: when the device leaves, or another that fits has room, it is given up for one there.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio.constellation.slots import Moved
from galaxy_trio.errors import NoSuchDevice, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.requirements import Requirements
    from galaxy_trio.constellation.slots import Place, Slot
    from galaxy_trio.constellation.task import Task


class Waiting:
    """Somebody who waits for a device that fits.

    Attributes:
        device: The one in whose queue it is, if it is in any.
        hope: One that fits, or may turn out to: while there is such a device it waits.
    """

    def __init__(self, requirements: Requirements, task: Task | None, hope: Device) -> None:
        self.requirements = requirements
        self._task = task
        self.hope: Device = hope
        self.device: Device | None = None
        self._place: Place | None = None
        self._assigned = trio.Event()
        self._error: Exception | None = None

    @property
    def may_move(self) -> bool:
        """Whether its turn is still to come."""
        return self._error is None and (self._place is None or self._place.waiting)

    @property
    def unassigned(self) -> bool:
        """Whether it waits in no device's queue."""
        return self.device is None and self._error is None

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
        place = None if device is None else device._enter_queue(self._task)
        before, self._place, self.device = self._place, place, device
        self.hope = device or self.hope
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


class Scheduler:
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
        self._rechecked: dict[Device, None] = {}
        # Some are in no queue because those of all that fit were full: they go before those who come later.
        self._crowded_out = False
        self._settling = False

    @property
    def unassigned(self) -> int:
        """How many wait in no device's queue."""
        return sum(waiting.unassigned for waiting in self._waiting)

    @contextmanager
    def queue(self, requirements: Requirements, task: Task | None) -> Generator[Waiting]:
        """Wait in the block, and nowhere after it.

        Raises:
            NoSuchDevice: No device fits, nor may any.
            QueueFull: Too many wait already.
        """
        hope = requirements.hope(self._devices.values())
        if hope is None:
            raise NoSuchDevice(f"no device for this task: {requirements.missing(self._devices.values())}")
        waiting = Waiting(requirements, task, hope)
        device = self._choose(requirements)
        if device is not None:
            waiting.assign(device)
        elif self.unassigned >= self._max_queued:
            raise QueueFull(
                f"{self._max_queued} tasks wait for devices to connect already: this one was not taken; "
                "wait for some to end, or raise max_queued"
            )
        self._waiting[waiting] = None
        try:
            yield waiting
        finally:
            del self._waiting[waiting]
            waiting.leave()

    def _choose(self, requirements: Requirements) -> Device | None:
        fitting = [device for device in self._devices.values() if device._takes_now and requirements.fit(device)]
        return min(fitting, key=lambda device: device._slots.load, default=None)

    # ---- when something has changed

    def reconsider(self, device: Device) -> None:
        """A device may have more room than before, or none any more. To be called whenever that may be; never blocks."""
        if self._waiting:
            self._changed[device] = None
            self._settle()

    def recheck(self, device: Device) -> None:
        """A device has connected, is known better, was given up, or was removed: it may now be what somebody waits for, or not any more."""
        if self._waiting:
            self._rechecked[device] = None
            self._settle()

    def _settle(self) -> None:
        # What is done about one change makes others: they have their turn after it.
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
            for waiting in self._waiting:
                if waiting.device is device and waiting.may_move:
                    self._assign_anew(waiting)
        if self._crowded_out and device._takes_now:
            self._recheck(device)
            self._crowded_out = self.unassigned > 0
        while device._has_room:
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
        with _telling(waiting):
            try:
                waiting.assign(self._choose(waiting.requirements))
            except QueueFull:
                self._crowded_out = True
                waiting.assign(None)

    def _recheck(self, device: Device) -> None:
        has_places = device._takes_now
        for waiting in self._waiting:
            with _telling(waiting):
                if waiting.device is device and waiting.may_move and not waiting.requirements.fit(device):
                    # It is known better, and is not what was asked for.
                    self._assign_anew(waiting)
                if not waiting.unassigned:
                    continue
                if has_places and waiting.requirements.fit(device):
                    try:
                        waiting.assign(device)
                    except QueueFull:
                        has_places = False
                        self._crowded_out = True
                elif waiting.hope is device and not waiting.requirements.may_be_met_by(device):
                    self._find_hope(waiting)

    def _find_hope(self, waiting: Waiting) -> None:
        devices = self._devices.values()
        hope = waiting.requirements.hope(devices)
        if hope is None:
            waiting.fail(NoSuchDevice(f"no device for this task any more: {waiting.requirements.missing(devices)}"))
        else:
            waiting.hope = hope

    def close(self, error: Callable[[], Exception]) -> None:
        """Nobody gets a device any more."""
        for waiting in self._waiting:
            if waiting.may_move:
                waiting.fail(error())


def _pop_first(devices: dict[Device, None]) -> Device:
    first = next(iter(devices))
    del devices[first]
    return first


@contextmanager
def _telling(waiting: Waiting) -> Generator[None]:
    """Tell whoever waits what his own predicate raises, and nobody else."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # of the caller's own predicate: it is his
        waiting.fail(error)
