"""Times and durations, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def duration(seconds: float) -> str:
    """Return a time in its largest useful unit: ``0.2 s``, ``7 s``, ``12 min``."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def parse_time(value: object) -> datetime | None:
    """Return a time in ISO 8601 with a time zone; None for anything else."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None


def local_time(value: object) -> str:
    """Return a time in ISO 8601 as the local time in seconds; anything else as it is."""
    time = parse_time(value)
    try:
        return str(value) if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError):
        # A time at the very beginning or end of the calendar has none.
        return str(value)


def seconds_between(start: object, end: object) -> float | None:
    """Return the seconds between two times in ISO 8601; None if one is missing."""
    first, last = parse_time(start), parse_time(end)
    return None if first is None or last is None else (last - first).total_seconds()


def seconds_until(value: object) -> float | None:
    """Return the seconds until a time in ISO 8601; None if it is missing."""
    return seconds_between(datetime.now(UTC).isoformat(), value)
