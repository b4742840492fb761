"""Faults, and changes of the configuration."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from galaxy_trio import NoSuchDevice
from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio.constellation.constellation import Constellation
    from tests.simulation.plan import Disturbance
    from tests.simulation.world import World


async def disturb(world: World, constellation: Constellation, step: Disturbance, broken: list[str]) -> None:
    """Change the configuration, or have the world cause a fault. Broken promises are added to a list."""
    device = constellation.devices.get(step.device)
    match step.kind:
        case "disconnect" | "reconnect" | "removal" | "immediate removal":
            world.journal.write("world", "disturbs", step.kind, f"{step.device}, {step.number}")
        case _:
            await world.disturb(step)
            return
    if device is None:
        return
    if step.kind in ("disconnect", "immediate removal"):
        world.journal.write("world", "stops", step.device)
    match step.kind:
        case "disconnect":
            await device.disconnect()
            if device.status is DeviceStatus.DISCONNECTED:
                check_connections(world, step.device, "it was disconnected", broken)
            await trio.sleep(step.seconds)
            await connect_if_any(device.connect)
        case "reconnect":
            await connect_if_any(device.reconnect)
        case _:
            try:
                await constellation.remove_device(step.device, wait=step.kind == "removal")
            except NoSuchDevice:
                return
            if step.device not in constellation.devices:
                check_connections(world, step.device, "it was removed", broken)
            await trio.sleep(step.seconds)
            if step.number % 2 and step.device not in constellation.devices:
                constellation.add_device(device.config)
    world.journal.write("world", "mends", step.kind, f"{step.device}, {step.number}")


async def connect_if_any(connect: Callable[[], Awaitable[None]]) -> None:
    """Connect a device, which may have been removed."""
    with contextlib.suppress(trio.ClosedResourceError):
        await connect()


def check_connections(world: World, device: str, after: str, broken: list[str]) -> None:
    """Check that no connection of a device is open."""
    if count := world.open_connections(device):
        broken.append(f"{count} connections of {device} are open after {after}")
