"""The error with which a database in PostgreSQL is refused."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.store import open_store

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.location import PostgresqlLocation


async def refusal_of(location: PostgresqlLocation) -> str:
    """The error of opening the database, which its check reports as well, and which shows no password anywhere."""
    message = await error_of_opening(location)
    with pytest.raises(StoreError) as checked:
        await trio.to_thread.run_sync(lambda: database_at(location).check())
    assert str(checked.value) == message
    return message


async def error_of_opening(location: PostgresqlLocation) -> str:
    with pytest.raises(StoreError) as caught:
        async with open_store(location):
            raise AssertionError("not reached")
    assert "sesame" not in "".join(traceback.format_exception(caught.value)) + repr(location)
    return str(caught.value)
