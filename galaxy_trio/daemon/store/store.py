"""The daemon's store of tasks: when a method that writes returns, its changes are on disk, and survive a crash."""

from __future__ import annotations

import codecs
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import trio
from sqlalchemy.exc import SQLAlchemyError

from galaxy_trio.daemon.store import departures, queries
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.group_commit import InDoubt, open_group_commit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sqlalchemy import Connection, Engine

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.database import Database
    from galaxy_trio.daemon.store.group_commit import GroupCommit
    from galaxy_trio.daemon.store.location import Location

P = ParamSpec("P")
T = TypeVar("T")

_MAX_READERS: Final = 4


def _write(
    operation: Callable[Concatenate[Transaction, P], T], *, only_reads: bool = False
) -> Callable[Concatenate[Store, P], Awaitable[T]]:
    """A method of the store that runs an operation that writes, or one that reads between two writes."""

    @wraps(operation)
    async def write(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.write(
            lambda transaction: operation(transaction, *args, **kwargs),
            only_reads=only_reads,
        )

    return write


def _read(operation: Callable[Concatenate[Connection, P], T]) -> Callable[Concatenate[Store, P], Awaitable[T]]:
    """A method of the store that runs an operation that only reads."""

    @wraps(operation)
    async def read(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.read(lambda connection: operation(connection, *args, **kwargs))

    return read


class UnknownOutcome(StoreError):
    """The database failed in the middle of a write and does not come back. When it is back, the write turns out to be on disk, or not."""


class Store:
    """The tasks of a daemon. Made by `open_store`.

    Its methods are the operations of `queries`, run in worker threads. All of them raise `StoreError` if the database fails; nothing of a
    failed write is on disk, except after `UnknownOutcome`, and later operations are not affected. Cancelling a write is safe: it is either
    not done, or waited for.
    """

    def __init__(self, database: Database, reading: Engine, group: GroupCommit) -> None:
        self._database = database
        self._engine = reading
        self._group = group
        self._readers = trio.CapacityLimiter(_MAX_READERS)

    add: Final = _write(queries.add)
    retry: Final = _write(queries.retry)
    mark_running: Final = _write(queries.mark_running)
    mark_queued: Final = _write(queries.mark_queued)
    finish: Final = _write(queries.finish)
    cancel_queued: Final = _write(queries.cancel_queued)
    fail_queued: Final = _write(queries.fail_queued)
    recover: Final = _write(queries.recover)
    claim: Final = _write(queries.claim)
    return_claims: Final = _write(queries.return_claims)
    get: Final = _read(queries.get)
    existing: Final = _read(queries.existing)
    page: Final = _read(queries.page)
    accepted: Final = _read(queries.accepted)
    whole_request: Final = _read(queries.whole_request)
    departures: Final = _read(departures.departures)
    count_queued: Final = _read(queries.count_queued)
    counts: Final = _read(queries.counts)

    @property
    def commits(self) -> int:
        """Transactions until now."""
        return self._group.commits

    async def check_writable(self) -> None:
        """Raise `StoreError` if nothing can be written. It changes nothing: the commit itself writes to the disk."""
        await self.write(lambda _transaction: None)

    async def delete_old(self, older_than: datetime, keep: int) -> int:
        """Delete the tasks that ended before a time, and the oldest ended ones beyond a number of them, with their results.

        Returns:
            How many were deleted.
        """
        deleted = 0
        # Unlike a write, looking for them delays no others.
        while await self.read(partial(queries.has_old, older_than=older_than, keep=keep)):
            deleted += await self.write(partial(queries.delete_some, older_than=older_than, keep=keep))
        return deleted

    async def read_result(self, task_id: str) -> AsyncGenerator[bytes]:
        """Yield a result as JSON, in pieces. It ends early if the task is deleted."""
        part = 0
        while True:
            piece = await self.read(partial(queries.piece, task_id=task_id, part=part))
            if piece is None:
                return
            yield piece
            part += 1

    async def read_text(self, task_id: str, column: str) -> AsyncGenerator[str]:
        """Yield a task's whole ``request`` or ``error``, in pieces.

        Raises:
            NoSuchTask: The task was deleted.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        start = 0
        while True:
            piece = await self.read(partial(queries.text_piece, task_id=task_id, column=column, start=start))
            if piece is None:
                raise queries.NoSuchTask(f"there is no task {task_id!r}")
            if not piece:
                return
            yield decoder.decode(piece)
            start += len(piece)

    async def write(self, operation: Callable[[Transaction], T], *, only_reads: bool = False) -> T:
        """Run an operation in a transaction; its changes are on disk when this returns."""
        try:
            return await self._group.write(operation, only_reads=only_reads)
        except InDoubt as error:
            reason = self._database.explain(error.cause) if isinstance(error.cause, SQLAlchemyError) else error.cause
            raise UnknownOutcome(f"{reason}; it is not known whether this was stored") from error
        except SQLAlchemyError as error:
            raise self._database.explain(error) from error

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation that only reads; reads run concurrently with each other and with writes."""
        try:
            return await trio.to_thread.run_sync(self._in_transaction, operation, limiter=self._readers)
        except SQLAlchemyError as error:
            raise self._database.explain(error) from error

    def _in_transaction(self, operation: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return operation(connection)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def open_store(location: Location, *, clock: Callable[[], datetime] = _utc_now) -> AsyncGenerator[Store]:
    """Open the database inside the block, and create its tables if it is empty. No other daemon can open it at the same time.

    Raises:
        StoreError: The database cannot be used; the message gives the reason.
    """
    database = database_at(location)
    async with (
        database.open() as engines,
        open_group_commit(engines.writing, clock, database.is_temporary) as group,
    ):
        yield Store(database, engines.reading, group)
