"""Chooses the dialect of the database by its location."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.sqlite import Sqlite

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.database import Database
    from galaxy_trio.daemon.store.location import Location


def database_at(location: Location) -> Database:
    """The database at a location.

    Raises:
        StoreError: The driver of its dialect is not installed, or its URL is invalid.
    """
    if isinstance(location, Path):
        return Sqlite(location)
    try:
        from galaxy_trio.daemon.store.postgresql import Postgresql  # noqa: PLC0415  # the extra "postgres" may not be installed
    except ImportError as error:
        raise StoreError(
            'the database is PostgreSQL, whose driver is not installed: pip install "galaxy_trio[postgres]"'
        ) from error
    return Postgresql(location)
