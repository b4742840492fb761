"""Devices without connections under a real scheduler, and calls for them. Each grant of a slot is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import trio

from galaxy_trio.constellation.profile import DeviceProfile
from galaxy_trio.constellation.ranked_queue import Rank, next_rank
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.constellation.scheduler import Scheduler
from galaxy_trio.constellation.slots import Lease, Place, Slots, TaskLimit
from galaxy_trio.errors import NoSuchDevice, QueueFull
from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from galaxy_trio.constellation.device import Device
    from galaxy_trio.constellation.slots import Slot
    from galaxy_trio.constellation.task import Task


class OfflineDevice:
    """The part of a device that the scheduler uses, and what its supervisor does."""

    status = DeviceStatus.DISCONNECTED

    def __init__(self, device_id: str, features: str, size: int, max_queued: int, fleet: OfflineFleet) -> None:
        self.device_id = device_id
        self.profile = DeviceProfile(device_id, "linux", tuple(features), {}, known=True)
        self.connected = False
        self._fleet = fleet
        self._removed = False
        self.slots = self._slots = _JudgedSlots(self, size, max_queued, fleet)

    @property
    def device(self) -> Device:
        """The device, for the scheduler."""
        return cast("Device", self)

    @property
    def takes_now(self) -> bool:
        """Whether the device runs tasks."""
        return self.connected and self._takes_tasks

    _takes_now = takes_now

    @property
    def _takes_tasks(self) -> bool:
        return not self._removed and not self._slots.closed

    def enter_queue(self, rank: Rank, task: Task | None = None, *, may_refuse: bool = True) -> Place:
        """Enter the device's queue."""
        place = self._slots.enter(rank, may_refuse=may_refuse and not (task is not None and task.had_slot))
        self.changed()
        return place

    _enter_queue = enter_queue

    def changed(self) -> None:
        """Report a change to the scheduler."""
        self._fleet.scheduler.reconsider(self.device)

    def connect(self) -> None:
        """Connect the device."""
        self.connected = True
        self._fleet.scheduler.recheck(self.device)
        self._slots.open_gate()

    def disconnect(self) -> None:
        """Disconnect the device."""
        self.connected = False
        self._slots.shut_gate()
        self.changed()

    def remove(self) -> None:
        """Accept no calls any more."""
        self._removed = True
        self.changed()
        self._slots.close(lambda: NoSuchDevice("it was removed"))
        self._fleet.scheduler.recheck(self.device)


class _JudgedSlots(Slots):
    def __init__(self, device: OfflineDevice, size: int, max_queued: int, fleet: OfflineFleet) -> None:
        super().__init__(device.device_id, size, max_queued, fleet.limit, device.changed)
        self._device = device
        self._fleet = fleet

    def grant(self) -> None:
        self._fleet.judge(self._device)
        super().grant()


@attrs.define(eq=False)
class _FakeTask:
    had_slot: bool = False


@attrs.define(eq=False)
class Call:
    """A call for a device, or for any with a feature.

    Attributes:
        wanted: The device's id, or the feature.
        priority: Its priority.
        granted: Whether a slot was granted.
        ended: Whether it has ended without a slot.
        lease: Its slot, when it knows of it.
        place: Its place, if it is for one device.
    """

    wanted: str
    priority: int
    rank: Rank
    task: _FakeTask = attrs.field(factory=_FakeTask)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    granted: bool = False
    ended: bool = False
    lease: Lease | None = None
    place: Place | None = None

    @property
    def waiting(self) -> bool:
        """Whether it waits for a slot."""
        return not self.granted and not self.ended and (self.place is None or self.place.waiting)

    def fits(self, device: OfflineDevice) -> bool:
        """Whether the device can run it."""
        return self.wanted == device.device_id or self.wanted in device.profile.capabilities


class OfflineFleet:
    """Devices, the calls for them, and the judge of their order."""

    def __init__(self, nursery: trio.Nursery, limit: int, max_queued: int) -> None:
        self._nursery = nursery
        self._max_queued = max_queued
        self.limit = TaskLimit(limit)
        self.devices: dict[str, OfflineDevice] = {}
        self.scheduler = Scheduler(cast("dict[str, Device]", self.devices), self.limit, max_queued)
        self.calls: list[Call] = []

    def add_device(self, device_id: str, features: str, size: int) -> None:
        """Add a device, in place of one with this id that was removed."""
        device = self.devices[device_id] = OfflineDevice(device_id, features, size, self._max_queued, self)
        self.scheduler.reconsider(device.device)

    def call(self, wanted: str, priority: int) -> None:
        """Make a call."""
        self._enter(Call(wanted, priority, next_rank(priority)))

    def call_again(self, call: Call) -> None:
        """Let a call that could not use its slot wait again."""
        assert call.lease is not None
        self.calls.remove(call)
        self._enter(Call(call.wanted, call.priority, call.rank, _FakeTask(had_slot=True)))
        call.lease.release()

    def _enter(self, call: Call) -> None:
        self.calls.append(call)
        task = cast("Task", call.task)
        try:
            if call.wanted in self.devices:
                call.place = self.devices[call.wanted].enter_queue(call.rank, task)
                self._nursery.start_soon(self._wait_for_place, call, self.devices[call.wanted], call.place)
            else:
                waiter = self.scheduler.enter(Requirements(capabilities=[call.wanted]), call.rank, task)
                self._nursery.start_soon(self._wait, call, self.scheduler.wait(waiter))
        except (NoSuchDevice, QueueFull):
            assert not call.granted
            call.ended = True

    async def _wait_for_place(self, call: Call, device: OfflineDevice, place: Place) -> None:
        async def wait() -> tuple[Device, Slot]:
            return device.device, await place.wait()

        await self._wait(call, wait())

    async def _wait(self, call: Call, waiting: Awaitable[tuple[Device, Slot]]) -> None:
        with call.scope:
            try:
                device, slot = await waiting
                call.lease = Lease(device._slots, slot)
            except (NoSuchDevice, trio.ClosedResourceError):
                assert not call.granted
            finally:
                call.ended = call.lease is None

    def judge(self, device: OfflineDevice) -> None:
        """Judge the grant of a slot to the first call in a device's queue."""
        assert self.limit.has_room
        [granted] = [call for call in self.calls if call.waiting and call.rank == device.slots.first_rank]
        assert granted.fits(device)
        usable = [each for each in self.devices.values() if each.takes_now and each.slots.free]
        for other in self.calls:
            if not other.waiting or other is granted:
                continue
            if any(other.fits(each) for each in usable):
                assert other.priority <= granted.priority, "a call of a higher priority waits"
            if other.wanted == device.device_id and other.priority == granted.priority:
                assert other.rank > granted.rank, "a call that was accepted earlier waits for the device"
        granted.granted = True

    def check(self) -> None:
        """Check what holds between two steps: no call waits for a slot that it could have."""
        for call in self.calls:
            for device in self.devices.values():
                if call.waiting and self.limit.has_room and device.takes_now and device.slots.free:
                    assert not call.fits(device), "a call waits for a free slot"

    def check_blocked(self) -> None:
        """Check what holds when all calls are blocked: nothing is lost or counted twice."""
        queued = sum(device.slots.queued for device in self.devices.values()) + self.scheduler.unassigned
        assert queued == sum(call.waiting for call in self.calls)
        assert self.limit.taken == sum(call.granted and not call.ended for call in self.calls)
