"""Fixtures of the daemon's tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
from tests.daemon.support.postgresql import PostgresqlServer, unique_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """A browser for all tests of the page."""
    # Playwright is installed for these tests alone.
    from tests.daemon.support.page_browser import open_browser  # noqa: PLC0415

    with open_browser() as browser:
        yield browser


@pytest.fixture
def threads() -> Generator[ThreadPoolExecutor]:
    """Threads for transactions that wait for each other."""
    with ThreadPoolExecutor() as threads:
        yield threads


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Location]:
    """Makes empty databases, of each dialect."""
    if request.param == "sqlite":
        return lambda: tmp_path / unique_name()
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return lambda: PostgresqlLocation(server.url(), unique_name())


@pytest.fixture
def each_database(database: Location) -> Generator[None]:
    """Let the daemons of a test use an empty database, of each dialect."""
    if isinstance(database, PostgresqlLocation):
        settings = f'database = "{database.url}"\ncluster = "{database.cluster}"\n'
    else:
        settings = f'database = "{database}"\n'
    # Tests may undo all of their own changes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.daemon.support.daemon.database_settings", settings)
        yield


@pytest.fixture
def database(new_database: Callable[[], Location]) -> Location:
    """An empty database of each dialect."""
    return new_database()


@pytest.fixture
def location(postgresql: PostgresqlServer) -> PostgresqlLocation:
    """A cluster that does not exist yet."""
    return PostgresqlLocation(postgresql.url(), unique_name())
