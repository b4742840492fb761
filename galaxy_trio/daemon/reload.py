"""Applies a changed configuration of devices to a running constellation; unchanged devices keep their connections."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import NoSuchDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio import Constellation, DeviceConfig


@attrs.frozen
class Changes:
    """The differences between two configurations, by device."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [("added", self.added), ("removed", self.removed), ("changed", self.changed)]
        return ", ".join(f"{word}: {', '.join(names)}" for word, names in parts if names) or "no device has changed"


def changes_between(constellation: Constellation, devices: Sequence[DeviceConfig]) -> Changes:
    """The differences between a constellation and a configuration."""
    wanted = {device.device_id: device for device in devices}
    present = constellation.devices
    return Changes(
        tuple(name for name in wanted if name not in present),
        tuple(name for name in present if name not in wanted),
        tuple(name for name, config in wanted.items() if name in present and present[name].config != config),
    )


async def apply_devices(constellation: Constellation, devices: Sequence[DeviceConfig], drain: float) -> Changes:
    """Add, remove and replace devices so that the constellation has exactly these.

    Tasks that are running on a removed or changed device may run on for `drain` seconds, and are stopped then.
    """
    changes = changes_between(constellation, devices)
    wanted = {device.device_id: device for device in devices}
    async with trio.open_nursery() as nursery:
        for name in changes.removed + changes.changed:
            nursery.start_soon(_replace, constellation, name, wanted.get(name), drain)
        for name in changes.added:
            constellation.add_device(wanted[name])
    return changes


async def _replace(constellation: Constellation, name: str, new: DeviceConfig | None, drain: float) -> None:
    with trio.move_on_after(drain), suppress(NoSuchDevice):
        await constellation.remove_device(name)
    if new is not None:
        constellation.add_device(new)
