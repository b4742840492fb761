"""A task's history: what happened to it, with times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from galaxy_trio.daemon.store.records import Departure, TaskRecord

EVENTS: Final = ("accepted", "sent", "returned", "completed", "failed", "cancelled", "lost")
"""What an entry can say."""


def history_of(record: TaskRecord, departures: Sequence[Departure]) -> list[dict[str, object]]:
    """Return a task's history, the oldest entry first: accepted, sent to a device, returned because that had left, ended."""
    entries = [_entry("accepted", record.created)]
    for departure in departures:
        # The record may be older than the departures.
        if departure.chosen != record.started:
            entries.append(_entry("sent", departure.chosen, departure.device))
            entries.append(_entry("returned", departure.left, departure.device))
    if record.started is not None:
        entries.append(_entry("sent", record.started, record.device))
    if record.ended is not None:
        entries.append(_entry(record.state.value, record.ended))
    return entries


def _entry(event: str, time: datetime, device: str | None = None) -> dict[str, object]:
    return {"time": time.isoformat(), "event": event, **({} if device is None else {"device": device})}
