"""The promises of slots and of the connection pool that the journal of a run must keep."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from galaxy_trio.events import TaskSubmitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.journal import Entry, Journal
    from tests.simulation.plan import DisturbanceKind, Plan

OF_DEVICES: Final[frozenset[DisturbanceKind]] = frozenset(
    {"death of device", "leave of device", "disconnect", "reconnect", "removal", "immediate removal"}
)
"""Disturbances that do not concern a `PlannedConnection`."""
OF_POOL: Final[frozenset[DisturbanceKind]] = frozenset(
    {"pooled reset", "pooled partition", "pooled silence", "pooled close", "lost acknowledgement"}
)
"""Disturbances that concern only connections of the pool."""
_LONGEST: Final = 100.0
"""Seconds that a task may run."""
_STOPPING: Final = 4.0
"""Seconds for stopping a task: closing its connection is bounded."""


def broken_promises_of_slots(plan: Plan, journal: Journal) -> Iterator[str]:
    """Describe the broken promises of slots and of the connection pool."""
    yield from _of_slots(plan, journal)
    yield from _of_connections(plan, journal)
    yield from _of_acknowledgements(plan, journal)
    yield from _of_stops(plan, journal)


def times_of_submission(journal: Journal) -> dict[str, list[tuple[float, str]]]:
    """Return the times and devices to which each task was sent."""
    submitted: dict[str, list[tuple[float, str]]] = {}
    for at, event in zip(
        (entry.at for entry in journal.entries if entry.actor == "event"), journal.events, strict=True
    ):
        if isinstance(event, TaskSubmitted):
            submitted.setdefault(event.task_id, []).append((at, event.device_id))
    return submitted


def _of_slots(plan: Plan, journal: Journal) -> Iterator[str]:
    """No device has more tasks than slots at any time, and no slot more than one.

    Tasks that may be abandoned share a connection, which may end before the server has noticed: they count while there is no fault.
    """
    calls = {call.name: call for call in plan.calls}
    separate_calls = {call.name for call in plan.separate_calls}
    slots = {device.name: device.slots for device in plan.devices}
    running: dict[str, dict[str, str]] = {name: {} for name in slots}
    faults = [entry for entry in journal.of("world", "disturbs") if entry.name not in OF_POOL]
    silent: set[str] = set()
    for entry in journal.entries:
        if entry.actor == "world":
            _forget_removed(entry, silent, running)
        if entry.actor != "server" or entry.name not in calls or entry.name in separate_calls:
            continue
        if entry.action == "ends":
            for each in running.values():
                each.pop(entry.name, None)
            continue
        device, client = entry.detail.split(" ")
        trouble_at = min((fault.at for fault in faults if _may_concern(device, fault)), default=math.inf)
        if calls[entry.name].on_cancel == "stop" or (entry.at + _LONGEST < trouble_at and not plan.dishonest):
            slot = _slot_of(client)
            others = running[device]
            if slot and slot in others.values() and not plan.has("corruption"):
                yield f"{[*others, entry.name]} ran at the same time, two of them in the slot of {client}"
            others[entry.name] = slot
            if len(others) > slots[device]:
                yield f"{sorted(others)} ran at the same time on {device}, which has {slots[device]} slots"


def _forget_removed(entry: Entry, silent: set[str], running: dict[str, dict[str, str]]) -> None:
    """Count a device that was removed and added again as another one, if its server may not have received the end of its tasks.

    Args:
        entry: Of the journal: what the world did.
        silent: The devices with a pooled connection that was silent; updated.
        running: The running tasks of each device; updated.
    """
    device = entry.detail.partition(",")[0]
    if entry.action == "disturbs" and entry.name in ("pooled silence", "pooled partition"):
        silent.add(device)
    elif entry.action == "mends" and entry.name in ("removal", "immediate removal") and device in silent:
        running[device].clear()


def _may_concern(device: str, fault: Entry) -> bool:
    """Whether a fault may end the shared connection of a device."""
    return fault.name not in OF_DEVICES or fault.detail.startswith(f"{device}, ")


def _slot_of(client: str) -> str:
    """Return the common part of the client ids of a slot's connections; empty for other connections."""
    found = re.fullmatch(r"(.*?\.\d+)(\.\d+)?(@.*)", client)
    return "" if found is None else found[1] + found[3]


def _of_connections(plan: Plan, journal: Journal) -> Iterator[str]:
    """No device has more connections than its slots and the one that is shared."""
    most = {device.name: device.slots + 1 for device in plan.devices}
    for entry in journal.of("world", "opens"):
        if int(entry.detail) > most[entry.name]:
            yield f"{entry.name} had {entry.detail} connections at {entry.at}, instead of {most[entry.name]} at most"


def _of_acknowledgements(plan: Plan, journal: Journal) -> Iterator[str]:
    """A connection whose task was not acknowledged runs no further task."""
    if plan.dishonest or plan.has("corruption"):
        return
    unacknowledged: dict[str, str] = {}
    lost = {entry.name for entry in journal.of("world", "loses acknowledgement")}
    for entry in journal.entries:
        if (entry.actor, entry.action) == ("world", "opens"):
            # It may be the next connection with the same client id.
            device = f"@{entry.name}"
            unacknowledged = {client: name for client, name in unacknowledged.items() if not client.endswith(device)}
        elif (entry.actor, entry.action) == ("server", "begins"):
            client = entry.detail.split(" ")[1]
            if client in unacknowledged:
                yield f"{entry.name} ran on the connection of {unacknowledged[client]}, which was not acknowledged"
            elif entry.name in lost and _slot_of(client):
                unacknowledged[client] = entry.name


def _of_stops(plan: Plan, journal: Journal) -> Iterator[str]:
    """Running tasks are stopped when their device is disconnected or removed."""
    submitted = times_of_submission(journal)
    ends = {entry.name: entry.at for entry in journal.of("caller", "ends")}
    for stop in journal.of("world", "stops"):
        for name, times in submitted.items():
            before = [(at, device) for at, device in times if at < stop.at]
            if before and before[-1][1] == stop.name and ends[name] > stop.at + _STOPPING:
                after = [at for at, _ in times if at >= stop.at]
                if not after:
                    yield f"{name} ran on {stop.name}, which was left at {stop.at}, and ended only at {ends[name]}"
