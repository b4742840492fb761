"""The date and time for messages, events and statistics. Timeouts and delays use trio's clock instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


def _system_time() -> datetime:
    return datetime.now(UTC)


source: Callable[[], datetime] = _system_time
"""The clock in use. A test may replace it."""


def now() -> datetime:
    """Return the current time in UTC."""
    return source()


def date_at(time: float | None) -> str | None:
    """Convert a time on trio's clock to ISO 8601, in UTC."""
    return None if time is None else (source() + timedelta(seconds=time - trio.current_time())).isoformat()


def timestamp() -> str:
    """Return the current time as it appears in messages: ISO 8601."""
    return source().isoformat()
