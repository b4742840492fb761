"""Group commit: concurrent writes share one transaction, and so one wait for the disk."""

from __future__ import annotations

from collections.abc import Callable  # attrs reads annotations at run time
from contextlib import asynccontextmanager
from datetime import datetime  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio
from sqlalchemy import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sqlalchemy import Engine

T = TypeVar("T")

_MAX_GROUP: Final = 256
"""Maximum writes in one transaction."""
_MAX_PENDING: Final = 1024
"""Maximum pending writes; further ones wait for room, and can be cancelled there."""


class Refused(Exception):
    """An operation refused to write; nothing of it is on disk. The others in its transaction are committed."""


@attrs.define(eq=False)
class Transaction:
    """What an operation runs in.

    Attributes:
        connection: The connection to the database.
        now: The time at which the operation was requested.
    """

    connection: Connection
    now: datetime
    _callbacks: list[Callable[[], None]]

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call a function in the event loop when the operation is on disk.

        The callbacks of all operations run in the order in which the operations ran; their callers return in any order. A callback must
        not block or raise.
        """
        self._callbacks.append(callback)


@attrs.define(eq=False)
class _Write:
    """A pending write, and its outcome."""

    run: Callable[[Transaction], None]
    requested: datetime
    callbacks: list[Callable[[], None]] = attrs.field(factory=list[Callable[[], None]])
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class GroupCommit:
    """Accepts writes from any task, and returns when they are on disk. Made by `open_group_commit`."""

    def __init__(self, sending: trio.MemorySendChannel[_Write], clock: Callable[[], datetime]) -> None:
        self._sending = sending
        self._clock = clock
        self.commits = 0
        """Transactions until now."""

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction, in a worker thread; its changes are on disk when this returns.

        Cancelling is safe: a write that is still waiting for room is not done. From then on this waits for it under a shield, so that the
        caller always knows what is on disk.

        Args:
            operation: Called with its transaction, and called again if a transaction that it shares with others fails.

        Raises:
            Exception: The operation or the database raised it; nothing of the operation is on disk.
            trio.ClosedResourceError: The group's block has ended.
        """
        results: list[T] = []

        def run(transaction: Transaction) -> None:
            results[:] = [operation(transaction)]

        write = _Write(run, self._clock())
        await self._sending.send(write)
        with trio.CancelScope(shield=True):
            await write.done.wait()
        if write.error is not None:
            raise write.error
        return results[0]


@asynccontextmanager
async def open_group_commit(engine: Engine, clock: Callable[[], datetime]) -> AsyncGenerator[GroupCommit]:
    """Accept writes inside the block. Leaving it waits for the writes that were accepted."""
    sending, receiving = trio.open_memory_channel[_Write](_MAX_PENDING)
    group = GroupCommit(sending, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_all, group, engine, receiving)
        with sending:
            yield group


async def _write_all(group: GroupCommit, engine: Engine, receiving: trio.MemoryReceiveChannel[_Write]) -> None:
    limiter = trio.CapacityLimiter(1)
    # The end of the block stops this loop, a cancellation does not: callers wait under shields, and each must get its outcome.
    with trio.CancelScope(shield=True):
        async for first in receiving:
            writes = [first]
            # Nothing keeps an operation, which may have a result of 100 MiB, while this waits for the next.
            del first
            while len(writes) < _MAX_GROUP:
                try:
                    writes.append(receiving.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            group.commits += await trio.to_thread.run_sync(_commit_all, engine, writes, limiter=limiter)
            while writes:
                _notify(writes.pop(0))


def _notify(write: _Write) -> None:
    """Call the write's callbacks, if it is on disk, and wake its caller."""
    if write.error is None:
        for callback in write.callbacks:
            callback()
    write.done.set()


def _commit_all(engine: Engine, writes: Sequence[_Write]) -> int:
    """Commit the writes together. If that fails, commit each alone: the fault may be in one of them.

    Returns:
        The number of transactions.
    """
    try:
        _commit(engine, writes)
    except Exception as error:  # noqa: BLE001  # its caller gets it
        if len(writes) == 1:
            writes[0].error = error
            return 1
        return 1 + sum(_commit_all(engine, [write]) for write in writes)
    return 1


def _commit(engine: Engine, writes: Sequence[_Write]) -> None:
    with engine.begin() as connection:
        for write in writes:
            write.error = None
            write.callbacks.clear()
            try:
                write.run(Transaction(connection, write.requested, write.callbacks))
            except Refused as refusal:
                write.error = refusal
