"""Another configuration while the daemon runs: devices come, go and change, and those that stay as they are keep their connections."""

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
    """What is different between two configurations."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [("added", self.added), ("removed", self.removed), ("changed", self.changed)]
        return ", ".join(f"{word}: {', '.join(names)}" for word, names in parts if names) or "nothing is different"


def changes_between(constellation: Constellation, devices: Sequence[DeviceConfig]) -> Changes:
    """What would have to be done to have these devices."""
    wanted = {device.device_id: device for device in devices}
    present = constellation.devices
    return Changes(
        tuple(name for name in wanted if name not in present),
        tuple(name for name in present if name not in wanted),
        tuple(name for name, config in wanted.items() if name in present and present[name].config != config),
    )


async def apply_devices(constellation: Constellation, devices: Sequence[DeviceConfig], patience: float) -> Changes:
    """Have these devices and no others. What runs on one that goes or changes may go on for some seconds, and is stopped then."""
    changes = changes_between(constellation, devices)
    wanted = {device.device_id: device for device in devices}
    async with trio.open_nursery() as nursery:
        for name in changes.removed + changes.changed:
            nursery.start_soon(_replace, constellation, name, wanted.get(name), patience)
        for name in changes.added:
            constellation.add_device(wanted[name])
    return changes


async def _replace(constellation: Constellation, name: str, by: DeviceConfig | None, patience: float) -> None:
    with trio.move_on_after(patience), suppress(NoSuchDevice):
        await constellation.remove_device(name)
    if by is not None:
        constellation.add_device(by)
