"""What a device and a constellation tell of themselves: plain data, ready for JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio._connection.connection import ConnectionStatistics
from galaxy_trio.events import DeviceStatus

if TYPE_CHECKING:
    from galaxy_trio.constellation.kept_device import KeptDevice
    from galaxy_trio.constellation.supervisor import KeptConnection


@attrs.frozen
class DeviceStatistics:
    """A device as it is now, and what became of it so far. Times are ISO 8601, in UTC.

    Attributes:
        running: Tasks and reservations that hold one of its slots, those that were abandoned among them.
        queued: Tasks and reservations that wait for it.
        idle_connections: Connections that are kept for its next tasks.
        connects: How often it was connected.
        failures: How many tries failed in a row.
        problem: Why it is not connected.
        next_try: When it is tried again.
        connected_since: Since when it is connected.
        last_heard: When the last byte came from its server.
        connection: Of its supervised connection, while there is one.
    """

    device_id: str
    status: DeviceStatus
    os: str | None
    capabilities: tuple[str, ...]
    running: int
    queued: int
    idle_connections: int
    connects: int
    failures: int
    problem: str | None
    next_try: str | None
    connected_since: str | None
    last_heard: str | None
    connection: ConnectionStatistics | None


@attrs.frozen
class ConstellationStatistics:
    """A constellation as it is now.

    Attributes:
        devices: By name, in the order in which they were added.
        running: Slots that are taken, of all devices.
        queued: Tasks and reservations that wait for a device.
        unassigned: Those of them that are in no device's queue: none that fits is connected, or all of those are full.
    """

    devices: dict[str, DeviceStatistics]
    running: int
    queued: int
    unassigned: int


def statistics_of(device: KeptDevice, kept: KeptConnection) -> DeviceStatistics:
    """What a device is now, and what became of its connection so far."""
    connection = kept.connection
    return DeviceStatistics(
        device_id=device.device_id,
        status=device.status,
        os=device.profile.os,
        capabilities=device.profile.capabilities,
        running=device.running,
        queued=device.queued,
        idle_connections=device.idle_connections,
        connects=kept.connects,
        failures=kept.failures,
        problem=kept.problem,
        next_try=_as_date(kept.next_try),
        connected_since=None if kept.connected_at is None else kept.connected_at.isoformat(),
        last_heard=None if connection is None else _as_date(connection.last_received),
        connection=None if connection is None else connection.statistics(),
    )


def _as_date(time: float | None) -> str | None:
    """A time of trio's clock as one of the calendar's."""
    if time is None:
        return None
    return (wall_clock.now() + timedelta(seconds=time - trio.current_time())).isoformat()
