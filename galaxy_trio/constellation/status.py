"""A device's status, and the calls that wait for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio.events import CONNECTED, DeviceStatus, StatusChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.events import Event


@attrs.define(eq=False)
class _Wait:
    wanted: frozenset[DeviceStatus]
    done: trio.Event = attrs.field(factory=trio.Event)
    found: DeviceStatus | None = None


class StatusTracker:
    """The current status of a device.

    Args:
        device_id: The device, for the events.
        publish: Called with `StatusChanged` for each change.

    Attributes:
        value: The current status.
    """

    def __init__(self, device_id: str, publish: Callable[[Event], None]) -> None:
        self._device_id = device_id
        self._publish = publish
        self._waits: set[_Wait] = set()
        self._closed = False
        self.value: DeviceStatus = DeviceStatus.DISCONNECTED

    @property
    def connected(self) -> bool:
        """Whether the device could run a task now."""
        return self.value in CONNECTED

    def change(self, status: DeviceStatus) -> bool:
        """Set the status, publish the change, and notify the calls that wait for it. Returns whether it changed."""
        if status is self.value:
            return False
        previous, self.value = self.value, status
        self._publish(StatusChanged(self._device_id, status, previous))
        for wait in self._waits:
            if wait.found is None and status in wait.wanted:
                wait.found = status
                wait.done.set()
        return True

    async def wait(self, *statuses: DeviceStatus) -> DeviceStatus | None:
        """Wait until the status is one of these, even for a moment. Cancelling is safe.

        Returns:
            The status that was found; None if the tracker was closed.
        """
        await trio.lowlevel.checkpoint()
        if self.value in statuses:
            return self.value
        if self._closed:
            return None
        wait = _Wait(frozenset(statuses))
        self._waits.add(wait)
        try:
            await wait.done.wait()
        finally:
            self._waits.discard(wait)
        return wait.found

    def close(self) -> None:
        """End all waits: the device was removed."""
        self._closed = True
        for wait in self._waits:
            wait.done.set()
