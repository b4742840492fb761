"""The devices that the nodes of a graph in the daemon name: why they are not connected. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio._cli.graph.shown import absence
from galaxy_trio._cli.times import parse_time
from galaxy_trio.events import (
    CONNECTED,
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from galaxy_trio._cli.graph.shown import DeviceEvent
    from galaxy_trio.messages import JSON


class StoredDevices:
    """The devices that nodes name, as the daemon's answers and events describe them."""

    def __init__(self) -> None:
        self._away: dict[str, tuple[str, str, str | None]] = {}
        self.named: Collection[str] = ()
        """The ids of the devices; what is about others is ignored."""

    def absences(self) -> Iterator[str]:
        """Say why devices are not connected."""
        for device_id, (status, problem, next_try) in self._away.items():
            yield absence(device_id, status, problem, next_try)

    def load(self, devices: Iterable[Mapping[str, JSON]]) -> None:
        """Replace everything by a list of devices."""
        self._away.clear()
        for device in devices:
            self._note(device)

    def follow(self, device: Mapping[str, JSON]) -> DeviceEvent | None:
        """Follow an event of a device. Returns it if it concerns people."""
        device_id = str(device.get("device_id"))
        if device_id not in self.named:
            return None
        self._note(device)
        reason = str(device.get("problem") or "no reason was given")
        match device.get("what"):
            case "connected":
                return DeviceConnected(device_id)
            case "disconnected":
                return DeviceDisconnected(device_id, reason, parse_time(device.get("next_try")))
            case "failed":
                return DeviceFailed(device_id, reason)
            case "needs attention":
                return DeviceNeedsAttention(device_id, reason)
            case _:
                return None

    def _note(self, device: Mapping[str, JSON]) -> None:
        device_id, status, problem = str(device.get("device_id")), str(device.get("status")), device.get("problem")
        if status in CONNECTED or problem is None or device_id not in self.named:
            self._away.pop(device_id, None)
        else:
            next_try = device.get("next_try")
            self._away[device_id] = (
                shortened(status),
                shortened(str(problem)),
                None if next_try is None else str(next_try),
            )
