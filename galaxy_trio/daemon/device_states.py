"""Reports the states of all devices to the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio import Device
    from galaxy_trio.daemon.device_slots import DeviceSlots
    from galaxy_trio.daemon.directory import Directory
    from galaxy_trio.daemon.scheduler import Scheduler


class DeviceStates:
    """Keeps the scheduler's devices in step with the directory. Those of other daemons have no slots here.

    Args:
        scheduler: Gets each change.
        directory: The devices.
        on_unavailable: Called with the slots of a device that disconnected or was removed. Must not block or raise.
    """

    def __init__(
        self, scheduler: Scheduler, directory: Directory, on_unavailable: Callable[[DeviceSlots], None]
    ) -> None:
        self._scheduler = scheduler
        self._directory = directory
        self._on_unavailable = on_unavailable
        # By name: the own devices whose slots are in the scheduler.
        self._devices: dict[str, Device] = {}

    def device_of(self, slots: DeviceSlots) -> Device:
        """The device of these slots."""
        return self._devices[slots.device_id]

    def update_all(self) -> None:
        """Report the states of all devices, including removed ones."""
        for device_id in {*self._scheduler.devices, *self._directory.names}:
            self.update(device_id)

    def update(self, device_id: str) -> bool:
        """Report the state of a device to the scheduler.

        Returns:
            Whether the scheduler's devices have changed.
        """
        device, state = self._directory.own.get(device_id), self._directory.state_of(device_id)
        slots = self._scheduler.devices.get(device_id)
        if slots is not None and (state is None or self._devices.get(device_id) is not device):
            self._scheduler.remove_device(slots)
            self._devices.pop(device_id, None)
            self._on_unavailable(slots)
            slots = None
        if state is None:
            return True
        if slots is None:
            if device is not None:
                self._devices[device_id] = device
            size = 0 if device is None else device.config.max_concurrent_tasks
            self._scheduler.add_device(device_id, size, state)
            return True
        if slots.state == state:
            return False
        self._scheduler.change_device(slots, state)
        if not state.connected:
            self._on_unavailable(slots)
        return True
