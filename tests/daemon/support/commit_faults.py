"""Makes commits of a store fail at the DBAPI: before they take place, or after, so that their answer is lost."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Generator

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


def _error(code: int = sqlite3.SQLITE_BUSY) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


@contextmanager
def commit_faults(store: Store) -> Generator[CommitFaults]:
    """Control the commits of a store inside the block."""
    faults = CommitFaults()

    class FaultyConnection(sqlite3.Connection):
        def commit(self) -> None:
            fault = faults.next() if self.in_transaction else Fault.NONE
            if fault is Fault.NOT_DONE:
                raise _error()
            if fault is Fault.NO_SPACE:
                raise _error(sqlite3.SQLITE_FULL)
            super().commit()
            if fault is Fault.ANSWER_LOST:
                raise _error()

    def connect(_dialect: Any, _record: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        if faults.refused:
            faults.refused -= 1
            raise _error()
        keywords["factory"] = FaultyConnection

    event.listen(store._engine, "do_connect", connect)
    store._engine.pool.dispose()  # pyright: ignore[reportUnknownMemberType]
    try:
        yield faults
    finally:
        event.remove(store._engine, "do_connect", connect)
