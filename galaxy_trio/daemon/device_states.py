"""Reports the states of the constellation's devices to the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio import DeviceStatus
from galaxy_trio.daemon.device_slots import DeviceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio import Constellation, Device
    from galaxy_trio.daemon.device_slots import DeviceSlots
    from galaxy_trio.daemon.scheduler import Scheduler
    from galaxy_trio.daemon.store.records import Requirement


class DeviceStates:
    """Keeps the scheduler's devices in step with those of the constellation.

    Args:
        scheduler: Gets each change.
        constellation: The devices.
        on_unavailable: Called with the slots of a device that disconnected or was removed. Must not block or raise.
    """

    def __init__(
        self, scheduler: Scheduler, constellation: Constellation, on_unavailable: Callable[[DeviceSlots], None]
    ) -> None:
        self._scheduler = scheduler
        self._constellation = constellation
        self._on_unavailable = on_unavailable
        # By name: the devices whose slots are in the scheduler.
        self._devices: dict[str, Device] = {}

    def device_of(self, slots: DeviceSlots) -> Device:
        """The device of these slots."""
        return self._devices[slots.device_id]

    def is_impossible(self, requirement: Requirement) -> bool:
        """Whether it is certain that none of the devices meets a requirement, however long a task waits for them."""
        devices = self._constellation.devices.values()
        return requirement.device is None and not any(_state_of(device).could_fit(requirement) for device in devices)

    def update_all(self) -> None:
        """Report the states of all devices, including removed ones."""
        for device_id in {**self._scheduler.devices, **self._constellation.devices}:
            self.update(device_id)

    def update(self, device_id: str) -> bool:
        """Report the state of a device to the scheduler.

        Returns:
            Whether the scheduler's devices have changed.
        """
        device = self._constellation.devices.get(device_id)
        slots = self._scheduler.devices.get(device_id)
        if slots is not None and self._devices[device_id] is not device:
            self._scheduler.remove_device(slots)
            del self._devices[device_id]
            self._on_unavailable(slots)
            slots = None
        if device is None:
            return True
        state = _state_of(device)
        if slots is None:
            self._devices[device_id] = device
            self._scheduler.add_device(device_id, device.config.max_concurrent_tasks, state)
            return True
        if slots.state == state:
            return False
        self._scheduler.change_device(slots, state)
        if not state.connected:
            self._on_unavailable(slots)
        return True


def _state_of(device: Device) -> DeviceState:
    profile = device.profile
    return DeviceState(
        connected=device.connected,
        usable=device.status is not DeviceStatus.FAILED,
        known=profile.known,
        os=profile.os,
        capabilities=frozenset(profile.capabilities),
    )
