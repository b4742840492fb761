"""The daemon's store of tasks: when a method that writes returns, its changes are on disk, and survive a crash."""

from __future__ import annotations

import codecs
import logging
import uuid
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import trio
from sqlalchemy.exc import SQLAlchemyError

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.store import (
    acceptance,
    claims,
    counts,
    deletion,
    departures,
    devices,
    events,
    fleet,
    lives,
    pieces,
    queries,
    takeover,
)
from galaxy_trio.daemon.store.committer import Committer
from galaxy_trio.daemon.store.database import MAX_READERS, StoreError
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.store.graph_store import GraphStore
from galaxy_trio.daemon.store.group_commit import InDoubt, open_group_commit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.database import Database, Engines
    from galaxy_trio.daemon.store.group_commit import GroupCommit
    from galaxy_trio.daemon.store.location import Location

logger: Final = logging.getLogger(__name__)

_END_TIMEOUT: Final = 5.0
"""Maximum seconds to write the end of a life."""
P = ParamSpec("P")
T = TypeVar("T")


def _write(
    operation: Callable[Concatenate[Transaction, P], T], *, only_reads: bool = False, takes: bool = False
) -> Callable[Concatenate[Store, P], Awaitable[T]]:
    """A method of the store that runs an operation that writes, or one that reads between two writes.

    If it takes something for this life of the daemon, that must not be over.
    """

    @wraps(operation)
    async def write(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.write(
            lambda transaction: operation(transaction, *args, **kwargs),
            only_reads=only_reads,
            takes=takes,
        )

    return write


def _read(operation: Callable[Concatenate[Connection, P], T]) -> Callable[Concatenate[Store, P], Awaitable[T]]:
    """A method of the store that runs an operation that only reads."""

    @wraps(operation)
    async def read(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.read(lambda connection: operation(connection, *args, **kwargs))

    return read


def _of_graphs(
    method: Callable[Concatenate[GraphStore, P], Awaitable[T]],
) -> Callable[Concatenate[Store, P], Awaitable[T]]:
    """A method of the store that ends tasks, which their graphs follow."""

    @wraps(method)
    async def call(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await method(store.graphs, *args, **kwargs)

    return call


class UnknownOutcome(StoreError):
    """The database failed in the middle of a write and does not come back. When it is back, the write turns out to be on disk, or not."""


class Store:
    """The tasks of a daemon. Made by `open_store`.

    Its methods are the operations of `queries` and `claims`, run in worker threads. All of them raise `StoreError` if the database fails;
    nothing of a failed write is on disk, except after `UnknownOutcome`, and later operations are not affected. Cancelling a write is safe:
    it is either not done, or waited for.

    Attributes:
        life: The id of this use of the database, 32 hexadecimal digits: the writer of its events.
        is_shared: Whether other daemons may use the database at the same time.
        lease: The seconds within which this life must be renewed; infinite if no other daemon may use the database.
    """

    def __init__(
        self,
        database: Database,
        engines: Engines,
        group: GroupCommit,
        life: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.life: Final = life
        self.is_shared: Final = database.is_shared
        self.lease: Final = database.lease
        self.lost_at_start: int = 0
        """The number of tasks that earlier lives left running, and that are `lost` now."""
        self._database = database
        self._engines = engines
        self._group = group
        self._clock = clock
        self._readers = trio.CapacityLimiter(MAX_READERS)
        self._renewers = trio.CapacityLimiter(1)
        self.graphs: Final = GraphStore(self)

    add: Final = _write(acceptance.add, takes=True)
    retry: Final = _write(acceptance.retry, takes=True)
    begin: Final = _write(fleet.begin)
    mark_running: Final = _write(queries.mark_running)
    mark_queued: Final = _of_graphs(GraphStore.mark_queued)
    finish: Final = _of_graphs(GraphStore.finish)
    cancel_queued: Final = _of_graphs(GraphStore.cancel_queued)
    fail_queued: Final = _of_graphs(GraphStore.fail_queued)
    publish: Final = _write(events.publish)
    check_writable: Final = _write(queries.check_writable)
    claim: Final = _write(claims.claim, takes=True)
    return_claims: Final = _write(claims.return_claims)
    return_all_claims: Final = _write(claims.return_all_claims)
    take_devices: Final = _write(fleet.take, takes=True)
    release_devices: Final = _write(fleet.release)
    drain: Final = _write(lives.drain_lives)
    seed_devices: Final = _write(devices.seed_devices)
    replace_devices: Final = _write(devices.replace_devices)
    report: Final = _write(devices.report)
    read_fleet: Final = _read(fleet.read_fleet)
    read_daemons: Final = _read(fleet.read_daemons)
    # They read between two writes, so that the counts belong to one place in the order of this daemon's changes.
    count_queued: Final = _write(counts.count_queued, only_reads=True)
    get: Final = _read(queries.get)
    existing: Final = _read(queries.existing)
    page: Final = _read(queries.page)
    accepted: Final = _read(acceptance.accepted)
    whole_request: Final = _read(queries.whole_request)
    departures: Final = _read(departures.departures)
    counts: Final = _read(counts.counts)
    event_bounds: Final = _read(events.bounds)
    events_after: Final = _read(events.events_after)

    async def begin_life(self, name: str, url: str | None) -> None:
        """Begin this life. Called by `open_store`."""
        await self.write(partial(lives.begin_life, life=self.life, name=name, url=url, lease=self.lease))

    async def end_life(self) -> None:
        """End this life: what it has is free immediately. Called by `open_store`."""
        try:
            await self.write(partial(takeover.end_life, life=self.life))
        except StoreError as error:
            logger.warning("the end of this daemon cannot be written, and others find it later: %s", error)

    async def take_over(self) -> takeover.Takeover:
        """End the other lives that are known to be over, and free what they have. The graphs of their running tasks go on.

        Returns:
            All that has changed.
        """
        changed = takeover.Takeover()
        while True:
            more = await self.write(partial(takeover.take_over, life=self.life, all_others=not self.is_shared))
            changed = changed.with_more(more)
            if not more.lives:
                break
        if any(record.graph is not None for record in changed.lost):
            # The takeover has taken place, and its caller must get to know it.
            try:
                await self.graphs.sweep()
            except StoreError as error:
                logger.warning("the graphs of lost tasks go on later: %s", error)
        return changed

    @property
    def commits(self) -> int:
        """Transactions until now."""
        return self._group.commits

    async def delete_old(self, older_than: datetime, keep: int) -> int:
        """Delete the tasks that ended before a time, and the oldest ended ones beyond a number of them, with their results.

        Those of graphs are deleted when all of their graph is that old.

        Returns:
            How many were deleted.
        """
        deleted = 0
        # Unlike a write, looking for them delays no others.
        while await self.read(partial(deletion.has_old, older_than=older_than, keep=keep)):
            deleted += await self.write(partial(deletion.delete_some, older_than=older_than, keep=keep))
        return deleted + await self.graphs.delete_old(older_than, keep)

    async def delete_old_events(self, older_than: datetime) -> None:
        """Delete the events before a time, and the oldest ones beyond a number and a size of them; see `events.newest_old`."""
        last = await self.read(partial(events.newest_old, older_than=older_than))
        deleted = 0
        while deleted < last:
            deleted = await self.write(partial(events.delete_events, last=last)) or last

    async def follow_events(self, on_commit: Callable[[], None]) -> NoReturn:
        """Call a function whenever there may be new events of this daemon or, in a shared database, of any. Never returns.

        It may be called when there is none. It must not block or raise.
        """
        await self._database.follow_events(on_commit)

    async def read_result(self, task_id: str) -> AsyncGenerator[bytes]:
        """Yield a result as JSON, in pieces. It ends early if the task is deleted."""
        part = 0
        while True:
            piece = await self.read(partial(pieces.piece, task_id=task_id, part=part))
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
            piece = await self.read(partial(pieces.text_piece, task_id=task_id, column=column, start=start))
            if piece is None:
                raise queries.NoSuchTask(f"there is no task {task_id!r}")
            if not piece:
                return
            yield decoder.decode(piece)
            start += len(piece)

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        only_reads: bool = False,
        takes: bool = False,
        changes: str | None = None,
    ) -> T:
        """Run an operation in a transaction, as `GroupCommit.write` does; its changes are on disk when this returns."""
        try:
            return await self._group.write(operation, only_reads=only_reads, takes=takes, changes=changes)
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

    async def renew(self) -> bool:
        """Renew the lease of this life, as `renew_life` does, on a connection of its own: a group commit does not delay it.

        Cancelling returns immediately; the lease may be renewed all the same.
        """

        def renew() -> bool:
            with self._engines.renewing.begin() as connection:
                return lives.renew_life(connection, self.life, self.lease, self._clock())

        try:
            # What waits for the network must not delay the end of a lease.
            return await trio.to_thread.run_sync(renew, abandon_on_cancel=True, limiter=self._renewers)
        except SQLAlchemyError as error:
            raise self._database.explain(error) from error

    def _in_transaction(self, operation: Callable[[Connection], T]) -> T:
        with self._engines.reading.connect() as connection:
            return operation(connection)


@asynccontextmanager
async def open_store(
    location: Location, *, name: str = "daemon", url: str | None = None, clock: Callable[[], datetime] = wall_clock.now
) -> AsyncGenerator[Store]:
    """Open the database for one life of a daemon, and create its tables if it is empty. The life begins and ends with the block.

    What earlier lives have left is taken over: their running tasks are `lost`. With SQLite, no other daemon can open the database at the
    same time, so that all earlier lives are known to be over; with PostgreSQL, those whose leases have expired.

    Args:
        location: The database. A life in PostgreSQL must be renewed within its lease; see `Store.renew`.
        name: The daemon's name, for people.
        url: Where the daemon is reached; `None` if it is not by others.
        clock: The time.

    Raises:
        StoreError: The database cannot be used; the message gives the reason.
    """
    database = database_at(location)
    life = uuid.uuid4().hex
    async with database.open() as engines:
        try:
            committer = await trio.to_thread.run_sync(
                Committer, engines.writing, life, database, partial(lives.is_alive, life=life)
            )
        except SQLAlchemyError as error:
            raise database.explain(error) from error
        async with open_group_commit(committer, clock, database.is_temporary) as group:
            store = Store(database, engines, group, life, clock)
            await store.begin_life(name, url)
            try:
                store.lost_at_start = len((await store.take_over()).lost)
                yield store
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_TIMEOUT):
                    await store.end_life()
