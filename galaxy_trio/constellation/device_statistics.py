"""What a device and a constellation tell of themselves: plain data, ready for JSON."""

from __future__ import annotations

import attrs

from galaxy_trio._connection.connection import ConnectionStatistics
from galaxy_trio.events import DeviceStatus


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
