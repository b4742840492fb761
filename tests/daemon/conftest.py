"""Fixtures of the daemon's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
from tests.daemon.support.postgresql import PostgresqlServer, open_postgresql, unique_name

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """A browser for all tests of the page."""
    # Playwright is installed for these tests alone.
    from tests.daemon.support.page_browser import open_browser  # noqa: PLC0415

    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def postgresql() -> Generator[PostgresqlServer]:
    """A PostgreSQL server for all tests of a process. Without PostgreSQL, its tests are skipped."""
    with open_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty database of each dialect."""
    if request.param == "sqlite":
        return tmp_path / "db"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return PostgresqlLocation(server.url(), unique_name())
