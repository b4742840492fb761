"""A limit on the threads of tools that block, counted until they have ended."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ThreadLimiter:
    """Runs at most `maximum` threads at a time. A cancelled call abandons its thread, which counts until it ends.

    Attributes:
        abandoned: Number of running threads whose call was cancelled.
        starved: Whether a call was cancelled while it waited for a thread, since the last command started.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limiter: trio.CapacityLimiter = trio.CapacityLimiter(maximum)
        self.abandoned: int = 0
        self.starved: bool = False

    @property
    def running(self) -> int:
        """Number of running threads, including abandoned ones."""
        return self.limiter.borrowed_tokens

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread once one is free. Cancelling returns immediately; the thread runs to its end."""
        token = _Token(self)
        try:
            return await trio.to_thread.run_sync(
                function,
                abandon_on_cancel=True,
                # trio accepts any object that has these two methods.
                limiter=cast("trio.CapacityLimiter", token),
            )
        except trio.Cancelled:
            if token.taken:
                token.abandoned = True
                self.abandoned += 1
            else:
                self.starved = True
            raise


class _Token:
    """One thread's token of the limiter. trio acquires it in the event loop and releases it once the thread has ended."""

    def __init__(self, threads: ThreadLimiter) -> None:
        self._threads = threads
        self.taken = False
        self.abandoned = False

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._threads.limiter.acquire_on_behalf_of(borrower)
        self.taken = True

    def release_on_behalf_of(self, borrower: object) -> None:
        self._threads.limiter.release_on_behalf_of(borrower)
        self.taken = False
        if self.abandoned:
            self._threads.abandoned -= 1


current_thread_limiter: ContextVar[ThreadLimiter] = ContextVar("current_thread_limiter")
"""The limiter of the agent whose command is running, for tools, which have no reference to their agent."""
