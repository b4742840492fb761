"""Group commit: concurrent writes share one transaction, and so one wait for the disk."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.daemon.store.committer import Batch, Write

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from datetime import datetime

    from galaxy_trio.daemon.store.committer import Committer, Transaction

T = TypeVar("T")

_MAX_GROUP: Final = 256
"""Maximum writes in one transaction."""
_MAX_PENDING: Final = 1024
"""Maximum pending writes; further ones wait for room, and can be cancelled there."""
_DELAYS: Final = (0.0, 0.1, 0.4, 1.0, 2.0, 4.0)
"""Seconds to wait before each repetition of a failed transaction."""
_MAX_REPEATING: Final = 10.0
"""Seconds after which a failed transaction is not repeated any more."""


class InDoubt(Exception):
    """The commit got no answer, and the database cannot be asked: the operation may be on disk, or not.

    Attributes:
        cause: The last error.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@attrs.define(eq=False)
class _Pending:
    """A write whose caller waits."""

    write: Write
    done: trio.Event = attrs.field(factory=trio.Event)


class GroupCommit:
    """Accepts writes from any task, and returns when they are on disk. Made by `open_group_commit`."""

    def __init__(
        self, sending: trio.MemorySendChannel[_Pending], committer: Committer, clock: Callable[[], datetime]
    ) -> None:
        self._sending = sending
        self._committer = committer
        self._clock = clock

    @property
    def commits(self) -> int:
        """Transactions until now."""
        return self._committer.commits

    async def write(
        self,
        operation: Callable[[Transaction], T],
        *,
        only_reads: bool = False,
        takes: bool = False,
        changes: str | None = None,
    ) -> T:
        """Run an operation in a transaction, in a worker thread; its changes are on disk when this returns.

        Cancelling is safe: a write that is still waiting for room is not done. From then on this waits for it under a shield, so that the
        caller always knows what is on disk.

        Args:
            operation: Called with its transaction, and called again if the transaction fails.
            only_reads: Whether the operation changes nothing, and only needs its place between the writes.
            takes: Whether the operation takes something for this life of the daemon.
            changes: The id of a graph that the operation changes, or of a task whose graph it may change.

        Raises:
            LifeOver: The operation takes something, and this life is over.
            InDoubt: The database failed in the middle of the commit and does not come back.
            Exception: The operation or the database raised it; nothing of the operation is on disk.
            trio.ClosedResourceError: The group's block has ended.
        """
        results: list[T] = []

        def run(transaction: Transaction) -> None:
            results[:] = [operation(transaction)]

        pending = _Pending(Write(run, self._clock(), only_reads, takes, changes))
        await self._sending.send(pending)
        with trio.CancelScope(shield=True):
            await pending.done.wait()
        error = pending.write.refusal or pending.write.error
        if error is not None:
            raise error
        return results[0]


@asynccontextmanager
async def open_group_commit(
    committer: Committer, clock: Callable[[], datetime], is_temporary: Callable[[Exception], bool]
) -> AsyncGenerator[GroupCommit]:
    """Accept writes inside the block. Leaving it waits for the writes that were accepted.

    Args:
        committer: Commits to the database.
        clock: The time at which a write is requested.
        is_temporary: Whether a transaction that failed with an error may succeed if it is repeated a moment later.
    """
    sending, receiving = trio.open_memory_channel[_Pending](_MAX_PENDING)
    group = GroupCommit(sending, committer, clock)
    async with open_background() as nursery:
        nursery.start_soon(_Loop(committer, is_temporary).commit_all, receiving)
        with sending:
            yield group


class _Loop:
    """Commits pending writes in batches, one batch at a time."""

    def __init__(self, committer: Committer, is_temporary: Callable[[Exception], bool]) -> None:
        self._committer = committer
        self._is_temporary = is_temporary
        self._limiter = trio.CapacityLimiter(1)

    async def commit_all(self, receiving: trio.MemoryReceiveChannel[_Pending]) -> None:
        # The end of the block stops this loop, a cancellation does not: callers wait under shields, and each must get its outcome.
        with trio.CancelScope(shield=True):
            async for first in receiving:
                group = [first]
                # Nothing keeps an operation, which may have a result of 100 MiB, while this waits for the next.
                del first
                while len(group) < _MAX_GROUP:
                    try:
                        group.append(receiving.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                await self._commit([pending.write for pending in group])
                while group:
                    _notify(group.pop(0))

    async def _commit(self, writes: Sequence[Write]) -> None:
        """Commit the writes together. If one of them fails, commit each alone."""
        error = await self._try(Batch(writes))
        if error is None:
            return
        if len(writes) > 1 and self._committer.doubt is None and not self._is_temporary(error):
            # The fault may be in one of them, and the others must not fail with it.
            for write in writes:
                await self._commit([write])
            return
        for write in writes:
            write.refusal, write.error = None, error

    async def _try(self, batch: Batch) -> Exception | None:
        """Commit a batch; repeat it for a limited time if the database was away.

        Returns:
            The last error, or `None`.
        """
        deadline = trio.current_time() + _MAX_REPEATING
        delays = iter(_DELAYS)
        while True:
            try:
                await trio.to_thread.run_sync(self._committer.commit, batch, limiter=self._limiter)
            except Exception as error:  # noqa: BLE001  # the callers get it
                in_doubt = self._committer.doubt == batch.token
                may_repeat = in_doubt or self._is_temporary(error)
                delay = next(delays, None)
                if delay is None or not may_repeat or trio.current_time() >= deadline:
                    return InDoubt(error) if in_doubt else error
            else:
                return None
            finally:
                _call(self._committer.late)
            await trio.sleep(delay)


def _notify(pending: _Pending) -> None:
    """Call the write's callbacks, if it is on disk, and wake its caller."""
    if pending.write.refusal is None and pending.write.error is None:
        _call(pending.write.callbacks)
    pending.done.set()


def _call(callbacks: list[Callable[[], None]]) -> None:
    while callbacks:
        callbacks.pop(0)()
