"""Makes commits of a store fail at the DBAPI: before they take place, or after, so that their answer is lost."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from galaxy_trio.daemon.store.store import Store


class Fault(Enum):
    """What happens to a commit."""

    NONE = auto()
    NOT_DONE = auto()
    NO_SPACE = auto()
    """It does not take place, and it is of no use to repeat it."""
    ANSWER_LOST = auto()
    """It takes place, and raises."""


class CommitFaults:
    """The faults of the next commits, and of all connections.

    Attributes:
        plan: The fault of each of the next commits that change something; then they succeed.
        refused: How many of the next connections cannot be opened.
        refused_afterwards: What `refused` becomes when the plan's last fault has happened.
        seen: The faults that have happened.
    """

    def __init__(self) -> None:
        self.plan: list[Fault] = []
        self.refused = 0.0
        self.refused_afterwards = 0.0
        self.seen: list[Fault] = []

    def next(self) -> Fault:
        fault = self.plan.pop(0) if self.plan else Fault.NONE
        if fault is not Fault.NONE:
            self.seen.append(fault)
            if not self.plan:
                self.refused, self.refused_afterwards = self.refused_afterwards, 0
        return fault


def _sqlite_error(code: int = sqlite3.SQLITE_BUSY) -> Exception:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


def _postgresql_error() -> Exception:
    return psycopg.OperationalError("it failed")


def _commit(
    faults: CommitFaults,
    commit: Callable[[], None],
    in_transaction: bool,
    failed: Callable[[], Exception],
    full: Exception,
) -> None:
    fault = faults.next() if in_transaction else Fault.NONE
    if fault is Fault.NOT_DONE:
        raise failed()
    if fault is Fault.NO_SPACE:
        raise full
    commit()
    if fault is Fault.ANSWER_LOST:
        raise failed()


def _sqlite_connect(faults: CommitFaults) -> Callable[..., object]:
    class FaultyConnection(sqlite3.Connection):
        def commit(self) -> None:
            full = _sqlite_error(sqlite3.SQLITE_FULL)
            _commit(faults, super().commit, self.in_transaction, _sqlite_error, full)

    return partial(sqlite3.connect, factory=FaultyConnection)


def _postgresql_connect(faults: CommitFaults) -> Callable[..., object]:
    class FaultyConnection(psycopg.Connection[Any]):
        def commit(self) -> None:
            in_transaction = self.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            _commit(faults, super().commit, in_transaction, _postgresql_error, psycopg.errors.DiskFull("it failed"))

    return FaultyConnection.connect


@contextmanager
def commit_faults(store: Store) -> Generator[CommitFaults]:
    """Control the commits of a store inside the block."""
    faults = CommitFaults()
    engine = store._group._committer._engine
    is_sqlite = engine.dialect.name == "sqlite"
    connect_faulty = (_sqlite_connect if is_sqlite else _postgresql_connect)(faults)

    def connect(_dialect: Any, _record: Any, arguments: Any, keywords: dict[str, Any]) -> object:
        if faults.refused:
            faults.refused -= 1
            raise _sqlite_error() if is_sqlite else _postgresql_error()
        return connect_faulty(*arguments, **keywords)

    event.listen(engine, "do_connect", connect)
    engine.pool.dispose()  # pyright: ignore[reportUnknownMemberType]
    try:
        yield faults
    finally:
        event.remove(engine, "do_connect", connect)
