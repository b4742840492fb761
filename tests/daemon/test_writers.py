"""Several committers on one database, each with a row of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event, insert, select

from galaxy_trio.daemon.store.committer import Batch, Committer, Transaction, Write
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.schema import COMMITS, DEVICES
from galaxy_trio.daemon.store.store import open_store
from tests.daemon.support.lives import NOW, create_tables, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.location import Location, PostgresqlLocation

pytestmark = pytest.mark.daemon


def _add_device(name: str) -> Batch:
    def add(transaction: Transaction) -> None:
        transaction.connection.execute(insert(DEVICES), {"name": name, "config": "{}"})

    return Batch([Write(add, NOW, only_reads=False, takes=False)])


def _devices(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(DEVICES.c.name).order_by(DEVICES.c.name)))


def _committer(engine: Engine, location: Location, name: str) -> Committer:
    return Committer(engine, name * 32, database_at(location), lambda _: True)


class _AnswerLost(Exception):
    """The connection was lost after a commit."""


def _lose_answer(engine: Engine, meanwhile: Callable[[], None]) -> None:
    """Let the next commit take place and raise, after something else has happened."""

    @event.listens_for(engine, "commit", once=True)
    def commit(connection: Connection) -> None:
        connection.connection.commit()
        meanwhile()
        raise _AnswerLost


async def test_commits_of_another_writer_do_not_hide_what_a_writer_has_committed(database: Location) -> None:
    await create_tables(database)
    with open_engine(database) as engine, open_engine(database) as other_engine:
        writer, other = _committer(engine, database, "a"), _committer(other_engine, database, "b")
        for number in range(3):
            _lose_answer(engine, partial(other.commit, _add_device(f"b{number}")))
            writer.commit(_add_device(f"a{number}"))
            assert writer.doubt is None
        assert _devices(engine) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_writer_does_not_wait_for_the_transaction_of_another_one(location: PostgresqlLocation) -> None:
    await create_tables(location)
    with open_engine(location) as engine, open_engine(location) as other_engine:
        writer, other = _committer(engine, location, "a"), _committer(other_engine, location, "b")
        # The transaction of the first writer is on its way when the other one commits.

        @event.listens_for(engine, "commit", once=True)
        def commit(_connection: Connection) -> None:
            other.commit(_add_device("b"))

        writer.commit(_add_device("a"))
        assert _devices(engine) == ["a", "b"]


async def test_each_opening_of_a_store_is_a_life_with_a_row_of_its_own(database: Location) -> None:
    lives: list[str] = []
    for _ in range(2):
        async with open_store(database) as store:
            lives.append(store.life)
            rows = await store.read(lambda connection: connection.scalars(select(COMMITS.c.writer)).all())
            assert sorted(rows) == sorted(lives)
    assert [len(life) for life in set(lives)] == [32, 32]
