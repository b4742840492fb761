"""What time it is for people: in messages, events and statistics. What is waited for goes by trio's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


def _of_this_machine() -> datetime:
    return datetime.now(UTC)


source: Callable[[], datetime] = _of_this_machine
"""Who is asked; a test may put another here."""


def now() -> datetime:
    """The time of now, in UTC."""
    return source()


def date_at(time: float | None) -> str | None:
    """Convert a time of trio's clock to ISO 8601, in UTC."""
    return None if time is None else (source() + timedelta(seconds=time - trio.current_time())).isoformat()


def timestamp() -> str:
    """The time of now, as messages give it: ISO 8601."""
    return source().isoformat()
