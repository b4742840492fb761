"""Writes that wait at the same time reach the disk together: one transaction, and one wait for the disk, for all of them."""

from __future__ import annotations

from collections.abc import Callable  # attrs reads annotations at run time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio
from sqlalchemy import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sqlalchemy import Engine

T = TypeVar("T")

_TOGETHER: Final = 256
"""Writes in one transaction at most."""
_WAITING: Final = 1024
"""Writes that may wait; others wait for room among them, where they can be cancelled."""


class Refused(Exception):
    """An operation found that it must not be done; it has written nothing."""


@attrs.define(eq=False)
class _Write:
    """One that waits: what to do, and what became of it."""

    run: Callable[[Connection], None]
    deliver: Callable[[], None]
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class GroupCommit:
    """Takes writes from any task, and returns when they are on disk. Made by `open_group_commit`."""

    def __init__(self, sending: trio.MemorySendChannel[_Write]) -> None:
        self._sending = sending
        self.commits = 0
        """Transactions until now."""

    async def write(self, operation: Callable[[Connection], T], deliver: Callable[[T], None] | None = None) -> T:
        """Run an operation in a transaction, in a worker thread; it is on disk when this returns.

        Cancelling works until the write is taken. From then on it is waited for, so that nobody is in doubt about what is on disk.

        Args:
            operation: Called with a connection, and again if a transaction with others fails.
            deliver: Called with the result as soon as it is on disk, in the order in which the operations were done; callers return in any
                order. Must not block or raise.

        Raises:
            Exception: What the operation or the database raised; nothing of it is on disk then.
            trio.ClosedResourceError: The block of the group has ended.
        """
        results: list[T] = []

        def run(connection: Connection) -> None:
            results[:] = [operation(connection)]

        def deliver_result() -> None:
            if deliver is not None:
                deliver(results[0])

        write = _Write(run, deliver_result)
        await self._sending.send(write)
        with trio.CancelScope(shield=True):
            await write.done.wait()
        if write.error is not None:
            raise write.error
        return results[0]


@asynccontextmanager
async def open_group_commit(engine: Engine) -> AsyncGenerator[GroupCommit]:
    """Take writes for the length of the block, whose end waits for those that were taken."""
    sending, receiving = trio.open_memory_channel[_Write](_WAITING)
    group = GroupCommit(sending)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_all, group, engine, receiving)
        with sending:
            yield group


async def _write_all(group: GroupCommit, engine: Engine, receiving: trio.MemoryReceiveChannel[_Write]) -> None:
    limiter = trio.CapacityLimiter(1)
    # It ends with the block: those who wait do so under shields, and must never be left alone.
    with trio.CancelScope(shield=True):
        async for first in receiving:
            writes = [first]
            while len(writes) < _TOGETHER:
                try:
                    writes.append(receiving.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            group.commits += await trio.to_thread.run_sync(_commit_all, engine, writes, limiter=limiter)
            for write in writes:
                if write.error is None:
                    write.deliver()
                write.done.set()


def _commit_all(engine: Engine, writes: Sequence[_Write]) -> int:
    """Commit them together. If that fails, each alone: the fault may be of one of them."""
    try:
        _commit(engine, writes)
    except Exception as error:  # noqa: BLE001  # each of them is told
        if len(writes) == 1:
            writes[0].error = error
            return 1
        return 1 + sum(_commit_all(engine, [write]) for write in writes)
    return 1


def _commit(engine: Engine, writes: Sequence[_Write]) -> None:
    with engine.begin() as connection:
        for write in writes:
            write.error = None
            try:
                write.run(connection)
            except Refused as refusal:
                write.error = refusal
