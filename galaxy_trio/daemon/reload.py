"""Another configuration while the daemon runs: devices come, go and change, and those that stay as they are keep their connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import NoSuchDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio import Constellation, DeviceConfig

logger = logging.getLogger(__name__)


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


async def apply_devices(constellation: Constellation, devices: Sequence[DeviceConfig]) -> Changes:
    """Have these devices and no others. What runs on one that goes, or changes, is stopped; what waits for it goes elsewhere, or fails."""
    changes = changes_between(constellation, devices)
    wanted = {device.device_id: device for device in devices}
    async with trio.open_nursery() as nursery:
        for name in changes.removed + changes.changed:
            nursery.start_soon(_remove, constellation, name)
    for name in changes.added + changes.changed:
        constellation.add_device(wanted[name])
    return changes


async def _remove(constellation: Constellation, name: str) -> None:
    try:
        await constellation.remove_device(name, wait=False)
    except NoSuchDevice:
        logger.info("device %r had gone already", name)
