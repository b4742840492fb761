"""Where tasks are kept: what a method that writes has returned is on disk, and stays there, whatever happens to the daemon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from sqlalchemy.exc import SQLAlchemyError

from galaxy_trio.daemon.store import queries
from galaxy_trio.daemon.store.group_commit import GroupCommit, open_group_commit
from galaxy_trio.daemon.store.schema import connect, explain, only_user

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState

T = TypeVar("T")

PIECE: Final = 2**16
"""Characters of a result in one piece; they are ASCII."""
_READERS: Final = 4


class Store:
    """The tasks of a daemon. Made by `open_store`.

    All methods raise `StoreError` if the database fails; nothing of a write is on disk then, and the next one is tried as if nothing
    had been. A write that is cancelled before it is taken has not been done; once it is taken, it is waited for.
    """

    def __init__(self, path: Path, engine: Engine, group: GroupCommit, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._engine = engine.execution_options(writes=False)
        self._group = group
        self._clock = clock
        self._readers = trio.CapacityLimiter(_READERS)

    @property
    def commits(self) -> int:
        """Transactions until now."""
        return self._group.commits

    # ---- what is written

    async def add(
        self, request: TaskRequest, deliver: Callable[[tuple[TaskRecord, bool]], None] | None = None
    ) -> tuple[TaskRecord, bool]:
        """Keep a new task, `queued`.

        Args:
            request: What is asked for.
            deliver: Called with what is returned, in the order of acceptance. Must not block or raise.

        Returns:
            The task, and whether it is new: the same idempotency key gives the same task, however far that is.

        Raises:
            IdempotencyConflict: The key is that of a task that asks for something else.
        """
        return await self._write(partial(queries.add, request, self._clock()), deliver)

    async def retry(self, task_id: str, deliver: Callable[[TaskRecord], None] | None = None) -> TaskRecord:
        """Keep a new task, `queued`, that asks for the same as one that has ended.

        Raises:
            NoSuchTask: There is none of this id.
            WrongState: It has not ended.
        """
        return await self._write(partial(queries.retry, task_id, self._clock()), deliver)

    async def mark_running(self, task_id: str, device: str) -> TaskRecord:
        """From `queued` to `running`.

        Raises:
            WrongState: It is not queued; it was cancelled meanwhile.
        """
        return await self._write(partial(queries.begin, task_id, device, self._clock().timestamp()))

    async def mark_queued(self, task_id: str) -> TaskRecord:
        """From `running` back to `queued`: the task is known not to have run.

        Raises:
            WrongState: It is not running.
        """
        return await self._write(partial(queries.requeue, task_id))

    async def finish(
        self, task_id: str, state: TaskState, *, error: str | None = None, result: str | None = None
    ) -> TaskRecord:
        """From `queued` or `running` to an end, with its result as JSON in ASCII.

        Raises:
            WrongState: It has ended already.
        """
        pieces = () if result is None else tuple(result[at : at + PIECE] for at in range(0, len(result), PIECE))
        # A device may send half of a character.
        error = None if error is None else error.encode("utf-8", "backslashreplace").decode()
        size = None if result is None else len(result)
        now = self._clock().timestamp()
        return await self._write(partial(queries.finish, task_id, state, now, error, size, pieces))

    async def cancel_queued(self, task_id: str) -> tuple[TaskRecord, bool]:
        """From `queued` to `cancelled`; a task that is no longer queued stays as it is.

        Returns:
            The task as it is now, and whether this has changed it.

        Raises:
            NoSuchTask: There is none of this id.
        """
        return await self._write(partial(queries.cancel_queued, task_id, self._clock().timestamp()))

    async def fail_queued(
        self,
        requirement: Requirement,
        error: str,
        at_most: int,
        deliver: Callable[[list[TaskRecord]], None] | None = None,
    ) -> list[TaskRecord]:
        """From `queued` to `failed`: the oldest tasks that need this of a device.

        Returns:
            The tasks that this has changed, the oldest first.
        """
        now = self._clock().timestamp()
        return await self._write(partial(queries.fail_queued, requirement, error, now, at_most), deliver)

    async def recover(self) -> int:
        """Every `running` task becomes `lost`: the daemon that ran it has gone.

        Returns:
            How many.
        """
        return await self._write(partial(queries.recover, self._clock().timestamp()))

    async def forget(self, older_than: datetime, keep: int) -> int:
        """Delete tasks that ended before a time, and the oldest beyond a number of them, with their results.

        Returns:
            How many.
        """
        forgotten = 0
        while True:
            step = await self._write(partial(queries.forget, older_than.timestamp(), keep))
            forgotten += step
            if step < queries.FORGOTTEN:
                return forgotten

    # ---- what is read

    async def get(self, task_id: str) -> TaskRecord | None:
        """A task, or `None` if there is none of this id."""
        return await self._read(partial(queries.find, task_id))

    async def page(
        self, *, state: TaskState | None = None, device: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[TaskRecord]:
        """Tasks, the newest first: those of a state, or that run or ran on a device; `before` is the last id of the page before this one.

        Raises:
            NoSuchTask: There is none with the id `before`, any more.
        """
        return await self._read(partial(queries.list_tasks, state, device, limit, before))

    async def queued(
        self,
        requirement: Requirement,
        after: int,
        at_most: int,
        deliver: Callable[[list[TaskRecord]], None] | None = None,
    ) -> list[TaskRecord]:
        """The oldest queued tasks that need this of a device, from a number on, in the order of acceptance.

        They are read between two writes, so that `deliver` gets them in order with what `add` delivers.
        """
        return await self._write(partial(queries.queued, requirement, after, at_most), deliver)

    async def count_queued(self) -> dict[Requirement, int]:
        """How many are queued, by what they need of a device."""
        return await self._read(queries.count_queued)

    async def counts(self) -> dict[TaskState, int]:
        """How many are in each state."""
        return await self._read(queries.counts)

    async def read_result(self, task_id: str) -> AsyncGenerator[bytes]:
        """A result as JSON, piece by piece. It ends early if the task is forgotten meanwhile."""
        part = 0
        while True:
            piece = await self._read(partial(queries.piece, task_id, part))
            if piece is None:
                return
            yield piece
            part += 1

    # ---- in threads

    async def _write(self, operation: Callable[[Connection], T], deliver: Callable[[T], None] | None = None) -> T:
        try:
            return await self._group.write(operation, deliver)
        except SQLAlchemyError as error:
            raise explain(self._path, error) from error

    async def _read(self, operation: Callable[[Connection], T]) -> T:
        try:
            return await trio.to_thread.run_sync(self._in_transaction, operation, limiter=self._readers)
        except SQLAlchemyError as error:
            raise explain(self._path, error) from error

    def _in_transaction(self, operation: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return operation(connection)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def open_store(path: Path, *, clock: Callable[[], datetime] = _utc_now) -> AsyncGenerator[Store]:
    """Open the database for the length of the block, and make it if there is none. No other daemon can meanwhile.

    Raises:
        StoreError: It does not do; says why.
    """
    with only_user(path):
        engine = await trio.to_thread.run_sync(connect, path)
        try:
            async with open_group_commit(engine) as group:
                yield Store(path, engine, group, clock)
        finally:
            # It closes files and waits for nobody.
            engine.dispose()
