"""Threads for tools that block: few, and counted until they have really ended."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ToolThreads:
    """At most `maximum` threads at a time. Whoever is cancelled leaves his thread behind, and it keeps its place until it ends.

    Attributes:
        abandoned: Threads that run, and whose caller has gone.
        starved: Whether the last caller who went without a thread waited for one in vain.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limiter: trio.CapacityLimiter = trio.CapacityLimiter(maximum)
        self.abandoned: int = 0
        self.starved: bool = False

    @property
    def running(self) -> int:
        """Threads that run, the abandoned ones among them."""
        return self.limiter.borrowed_tokens

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread, once there is room for one. Cancelling returns at once, and leaves the thread to its end."""
        place = _Place(self)
        try:
            return await trio.to_thread.run_sync(
                # trio takes any object that has these two methods.
                function,
                abandon_on_cancel=True,
                limiter=cast("trio.CapacityLimiter", place),
            )
        except trio.Cancelled:
            if place.taken:
                place.abandoned = True
                self.abandoned += 1
            else:
                self.starved = True
            raise


class _Place:
    """One thread's place among the `ToolThreads`. trio calls it in its own thread, and releases it when the other has ended."""

    def __init__(self, threads: ToolThreads) -> None:
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


current_threads: ContextVar[ToolThreads] = ContextVar("current_threads")
"""The threads of the agent whose command runs: a tool is called without knowing of an agent."""
