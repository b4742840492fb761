"""Statistics of devices: plain data, ready for JSON."""

from __future__ import annotations

import attrs

from galaxy_trio._connection.connection import ConnectionStatistics
from galaxy_trio.events import DeviceStatus


@attrs.frozen
class DeviceStatistics:
    """The current state and the counters of a device. Times are ISO 8601, in UTC.

    Attributes:
        running: Tasks and reservations that hold a slot, including abandoned tasks.
        queued: Tasks and reservations that wait for the device.
        idle_connections: Connections in the pool that wait for a task.
        connects: Times that the device was connected.
        failures: Attempts to connect that failed in a row.
        problem: The reason for which the device is not connected.
        next_try: The time of the next attempt to connect.
        connected_since: The time at which the device was connected.
        last_heard: The time of the last byte from the server.
        connection: Statistics of the supervised connection, while there is one.
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
    """The current state and the counters of a constellation.

    Attributes:
        devices: The devices by id, in the order in which they were added.
        running: Slots in use, of all devices.
        queued: Tasks and reservations that wait for a device.
        unassigned: Those of them that are in no device's queue, because no device that fits is connected or all their queues are full.
        memory_held: Bytes that count towards the memory budget of all connections.
        closed_for_memory: Connections that were closed because of the memory budget.
    """

    devices: dict[str, DeviceStatistics]
    running: int
    queued: int
    unassigned: int
    memory_held: int
    closed_for_memory: int
