"""Commits the operations of a batch in one transaction, exactly once, also if the answer of a commit is lost.

Rule 7 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence  # attrs reads annotations at run time
from datetime import datetime  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Final

import attrs
from sqlalchemy import Connection, bindparam, insert, select, update

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.daemon.store.database_clock import now_of_database
from galaxy_trio.daemon.store.graph_locks import lock_graphs
from galaxy_trio.daemon.store.schema import COMMITS, EVENTS
from galaxy_trio.daemon.store.statements import insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from galaxy_trio.daemon.store.database import Database

_LAST: Final = select(COMMITS.c.token).where(COMMITS.c.writer == bindparam("name")).with_for_update()
_SET_LAST: Final = update(COMMITS).where(COMMITS.c.writer == bindparam("name")).values(token=bindparam("last"))
_INSERT_EVENTS: Final = insert(EVENTS).inline()
_encoder: Final = json.JSONEncoder(separators=(",", ":"))


class Refused(Exception):
    """An operation refused to write; nothing of it is on disk. The others in its transaction are committed."""


class LifeOver(Refused):
    """The life of this daemon is over, and it can take nothing any more: another daemon found that its lease had expired."""

    def __init__(self) -> None:
        super().__init__("this daemon has lost its lease, and starts again: retry in a moment")


@attrs.define(eq=False)
class Transaction:
    """What an operation runs in.

    Attributes:
        connection: The connection to the database.
        now: The time at which the operation was requested.
        new_id: 32 hexadecimal digits for what the operation adds. They are made with the request: a repeated operation gets the same ones.
    """

    connection: Connection
    now: datetime
    new_id: str
    _callbacks: list[Callable[[], None]]
    _events: list[tuple[str, str]]

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call a function in the event loop when the operation is on disk.

        The callbacks of all operations run in the order in which the operations ran; their callers return in any order. A callback must
        not block or raise. If the database is away for so long that the caller gets an error, and the operation turns out to be on disk,
        the function is called then, before any later operation runs.
        """
        self._callbacks.append(callback)

    def publish(self, kind: str, data: Mapping[str, object]) -> None:
        """Publish an event with the operation: it is on disk together with what the operation changes, or not at all.

        Args:
            kind: The event's name.
            data: The event's data, of limited size. It is encoded immediately.
        """
        self._events.append((kind, _encoder.encode(data)))


def _new_id() -> str:
    return uuid.uuid4().hex


@attrs.define(eq=False)
class Write:
    """An operation, and its outcome.

    Attributes:
        run: Runs the operation.
        requested: The time at which it was requested.
        only_reads: Whether it changes nothing, so that it has not happened if its caller got an error.
        takes: Whether it takes something for this life of the daemon, which must not be over.
        changes: The id of a graph that it changes, or of a task whose graph it changes, if the task has one.
        new_id: See `Transaction`.
        callbacks: What to call when it is on disk.
        events: The kind and the data of each event that it publishes.
        refusal: The operation refused to write, and the others of its batch are committed.
        error: What its caller gets.
    """

    run: Callable[[Transaction], None]
    requested: datetime
    only_reads: bool
    takes: bool
    changes: str | None = None
    new_id: str = attrs.field(factory=_new_id)
    callbacks: list[Callable[[], None]] = attrs.field(factory=list[Callable[[], None]])
    events: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    refusal: Refused | None = None
    error: Exception | None = None


@attrs.define(eq=False)
class Batch:
    """Operations that share a transaction. Its token is on disk with them: so it is known whether they are."""

    writes: Sequence[Write]
    token: str = attrs.field(factory=_new_id)


@attrs.frozen(eq=False)
class _Doubt:
    """A batch whose commit got no answer, without its operations, which may be large."""

    token: str
    callbacks: Sequence[Callable[[], None]]


class Committer:
    """Commits batches. Its methods run in one worker thread at a time.

    The last change of each transaction is its token, in the row of this writer in the table of commits. If a commit fails, this row is read
    on another connection: with the token there, the operations are on disk and do not run again. The row is locked by the first transaction
    until that has ended, so a commit that is still on its way cannot arrive later.

    Args:
        engine: The database.
        writer: The name of the row, and the writer of the events, which no other committer uses at the same time.
        database: Orders the events, and is notified when they are on disk.
        is_alive: Whether the writer is a life that is not over. If so, it stays alive until the end of the transaction.
    """

    def __init__(
        self,
        engine: Engine,
        writer: str,
        database: Database,
        is_alive: Callable[[Connection], bool],
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._row = {"name": writer}
        self._database = database
        self._is_alive = is_alive
        self._doubt: _Doubt | None = None
        self.commits: int = 0
        """Transactions until now."""
        self.late: list[Callable[[], None]] = []
        """The callbacks of operations that turned out to be on disk after their callers got an error. The caller of `commit` empties it."""
        with engine.begin() as connection:
            created = now_of_database(connection, wall_clock.now())
            values = {"writer": writer, "token": "", "created": created}
            connection.execute(insert_if_absent(COMMITS, engine.dialect.name).values(values))

    @property
    def doubt(self) -> str | None:
        """The token of the last batch, if it is not known whether it is on disk."""
        return None if self._doubt is None else self._doubt.token

    def commit(self, batch: Batch) -> None:
        """Run the operations of a batch and commit them. Call it again with the same batch if the database fails.

        Raises:
            Exception: An operation or the database raised it. Nothing of the batch is on disk, unless `doubt` is its token.
        """
        self.commits += 1
        if self._doubt is not None and self._settle(self._doubt, batch):
            return
        try:
            self._commit(batch)
        except Exception as error:
            # Of any kind: what counts is whether the commit had begun.
            if self._doubt is None:
                raise
            try:
                is_committed = self._settle(self._doubt, batch)
            except Exception:  # noqa: BLE001  # the first error is the reason
                raise error from None
            if not is_committed:
                raise

    def _commit(self, batch: Batch) -> None:
        with self._engine.connect() as connection:
            # Once for all of them, and before they lock anything else.
            may_take = not any(write.takes for write in batch.writes) or self._is_alive(connection)
            changed = [write.changes for write in batch.writes if write.changes is not None]
            if changed and len(batch.writes) > 1:
                lock_graphs(connection, changed)
            for write in batch.writes:
                _run(write, connection, may_take=may_take)
            self._write_events(batch, connection)
            if not all(write.only_reads for write in batch.writes):
                connection.execute(_SET_LAST, {**self._row, "last": batch.token})
                self._doubt = _Doubt(batch.token, _callbacks_of(batch))
            try:
                connection.commit()
            except BaseException:
                # Whatever it was, it is raised again, and the next transaction gets a fresh connection.
                connection.invalidate()
                raise
            self._doubt = None

    def _write_events(self, batch: Batch, connection: Connection) -> None:
        """Write the events of all operations, after everything that they change: other daemons wait until these are committed."""
        writes = [write for write in batch.writes if write.events and write.refusal is None]
        if not writes:
            return
        self._database.order_events(connection)
        rows = [
            {"writer": self._writer, "kind": kind, "data": data, "at": write.requested.timestamp()}
            for write in writes
            for kind, data in write.events
        ]
        # A list of one would be sent as a batch, which takes longer.
        connection.execute(_INSERT_EVENTS, rows if len(rows) > 1 else rows[0])
        writes[-1].callbacks.append(self._database.report_events)

    def _settle(self, doubt: _Doubt, batch: Batch) -> bool:
        """Find out whether the batch in doubt is on disk. Returns whether it is this one, so that nothing is left to do."""
        with self._engine.connect() as connection:
            is_committed = connection.execute(_LAST, self._row).scalar_one() == doubt.token
        self._doubt = None
        if is_committed and doubt.token != batch.token:
            self.late += doubt.callbacks
        return is_committed and doubt.token == batch.token


def _run(write: Write, connection: Connection, *, may_take: bool) -> None:
    write.refusal = None if may_take or not write.takes else LifeOver()
    write.callbacks.clear()
    write.events.clear()
    if write.refusal is not None:
        return
    try:
        write.run(Transaction(connection, write.requested, write.new_id, write.callbacks, write.events))
    except Refused as refusal:
        write.refusal = refusal


def _callbacks_of(batch: Batch) -> list[Callable[[], None]]:
    """What to call if the batch turns out to be on disk after its callers got an error."""
    changes = [write for write in batch.writes if write.refusal is None and not write.only_reads]
    return [callback for write in changes for callback in write.callbacks]
