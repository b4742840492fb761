"""What must not be left when everything has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from galaxy_trio.constellation.constellation import Constellation
    from tests.simulation.world import World


def left_in(constellation: Constellation, world: World) -> str:
    """Describe what is left in a constellation and on its server; empty if nothing is."""
    statistics = constellation.statistics()
    if (statistics.running, statistics.queued, statistics.unassigned) != (0, 0, 0):
        return f"{statistics.running} running, {statistics.queued} queued, {statistics.unassigned} unassigned"
    for device in statistics.devices.values():
        if device.status is not DeviceStatus.IDLE or device.connection is None:
            return f"{device.device_id} is {device.status}: {device.problem}"
        if device.connection.pending:
            return f"{device.connection.pending} requests pending on {device.device_id}"
    # One task for each device, and one that waits for cancellation: idle connections have expired.
    tasks = len(constellation._nursery.child_tasks)
    if tasks != len(statistics.devices) + 1:
        return f"{tasks} tasks in the nursery for {len(statistics.devices)} devices"
    return left_on_server(world, len(statistics.devices))


def left_on_server(world: World, constellations: int) -> str:
    """Describe what is left on the server of a number of constellation connections; empty if nothing is."""
    if world.fleet.server is None:
        return "no server"
    devices = len(world.plan.devices)
    held = world.fleet.server.statistics()
    expected = (devices, constellations, 0, 0, devices + constellations)
    found = (held.devices, held.constellations, held.sessions, held.ending_sessions, held.connections)
    if found != expected:
        return f"{found} instead of {expected} devices, constellations, sessions, ending sessions, connections"
    working = [name for name, count in world.working.items() if count]
    return f"devices still work on {working}" if working else ""
