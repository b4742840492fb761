"""The drivers of graphs: each test of a rule runs by all of them.

What only a program has is tested in tests/graph: holds, planners, `max_concurrent`, and functions, as conditions that raise.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from trio.testing import MockClock

from galaxy_trio._concurrency import wall_clock

from .support.devices import open_devices
from .support.library import LongestWaits, open_library
from .support.running import RunningGraph

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.daemon.store.location import Location
    from tests.daemon.support.postgresql import PostgresqlServer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """A clock that runs as fast as the real one, and jumps; the time of day follows it."""
    clock, begin = MockClock(rate=1.0), wall_clock.now()
    monkeypatch.setattr(wall_clock, "source", lambda: begin + timedelta(seconds=clock.current_time()))
    return clock


@pytest.fixture(
    params=[
        "library",
        pytest.param("sqlite", marks=pytest.mark.daemon),
        pytest.param("postgresql", marks=pytest.mark.daemon),
    ]
)
async def graph(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[RunningGraph]:
    """A graph in the library, and in a daemon on each of its databases."""
    if request.param == "library":
        async with open_devices() as devices, open_library(devices) as library:
            yield RunningGraph(library, devices)
        return
    # The library needs none of it.
    from galaxy_trio.daemon.store import graph_steps  # noqa: PLC0415
    from galaxy_trio.daemon.store.location import PostgresqlLocation  # noqa: PLC0415
    from tests.daemon.support.postgresql import unique_name  # noqa: PLC0415

    from .support.daemon import open_daemon  # noqa: PLC0415

    monkeypatch.setattr(graph_steps, "random", LongestWaits())
    database: Location = tmp_path / "database"
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        database = PostgresqlLocation(server.url(), unique_name())
    async with open_devices() as devices, open_daemon(devices, tmp_path, database) as daemon:
        yield RunningGraph(daemon, devices)
