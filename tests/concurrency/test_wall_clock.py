"""Dates come from one clock, which a test may replace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio._concurrency import wall_clock

if TYPE_CHECKING:
    import pytest


async def test_a_time_on_trios_clock_is_converted_to_a_date(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_clock, "source", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    await trio.sleep(1000)
    now = trio.current_time()
    assert wall_clock.date_at(now) == wall_clock.timestamp() == "2026-01-01T00:00:00+00:00"
    assert wall_clock.date_at(now + 90.5) == "2026-01-01T00:01:30.500000+00:00"
    assert wall_clock.date_at(now - 60) == "2025-12-31T23:59:00+00:00"
    assert wall_clock.date_at(None) is None


def test_the_current_time_is_in_utc() -> None:
    assert wall_clock.now().tzinfo is UTC
