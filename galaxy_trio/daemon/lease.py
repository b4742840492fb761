"""The lease of a daemon's life as the deadline of a cancel scope: what only the owner of a device may do, ends before another owns it.

Rules 1 and 2 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from random import uniform
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import GalaxyError
from galaxy_trio._concurrency import suspension
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.daemon.store.database import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

logger: Final = logging.getLogger(__name__)

_INTERVAL: Final = 1 / 3
"""The time between two renewals, as a part of the lease."""
_MARGIN: Final = 1 / 6
"""The time before the end of the lease at which the block is cancelled, as a part of it: connections must be closed by then."""
_MIN_DELAY: Final = 1 / 100
_MAX_DELAY: Final = 1 / 12
"""The time before a failed renewal is repeated, as a part of the lease: it doubles from one repetition to the next."""


class LeaseLost(GalaxyError):
    """This life of the daemon is over: other daemons take over its devices, and the tasks that it ran become `lost`."""


@asynccontextmanager
async def open_lease(renew: Callable[[], Awaitable[bool]], lease: float) -> AsyncGenerator[Callable[[], float]]:
    """Renew a lease inside the block, and cancel the block before the lease ends.

    The lease is counted from the moment before each request, because the database counts it from a later one. Time for which the machine
    was asleep counts, too: it is noticed within about a second after it wakes up. The block may go on while the database is away, until the
    lease ends.

    Args:
        renew: Renews the lease, and returns whether the life goes on, like `Store.renew`. It is called once before the block begins.
            Cancelling it must return immediately.
        lease: Seconds; with `math.inf`, nothing is renewed.

    Yields:
        A function that returns the seconds until the lease ends, at least, if it is not renewed before; `math.inf` if it never ends.

    Raises:
        LeaseLost: The life was over already, or the block was cancelled because it is.
        StoreError: The first renewal failed.
    """
    if lease == math.inf:
        yield lambda: math.inf
        return
    keeper = _Keeper(renew, lease)
    if not await keeper.renew_once():
        raise LeaseLost(_FOUND_DEAD)
    async with open_background() as nursery:
        nursery.start_soon(keeper.renew_repeatedly)
        nursery.start_soon(keeper.watch_sleep)
        with keeper.scope:
            yield keeper.time_left
    if keeper.scope.cancelled_caught:
        raise LeaseLost(keeper.why_lost()) from keeper.failure


_FOUND_DEAD: Final = (
    "another daemon found that the lease of this one had expired, and takes over its devices; the tasks that it ran are lost: "
    "check whether this machine or its network was overloaded or suspended"
)


class _Keeper:
    """A lease, and the scope that ends before it."""

    def __init__(self, renew: Callable[[], Awaitable[bool]], lease: float) -> None:
        self.scope: Final = trio.CancelScope()
        self.failure: StoreError | None = None
        """The error of the last renewal, if it failed."""
        self._renew = renew
        self._lease = lease
        self._is_over = False
        # The time of the request that renewed the lease, and how long the machine had been asleep until then.
        self._requested = 0.0
        self._asleep = 0.0
        self._woken = trio.Event()

    async def renew_once(self) -> bool:
        """Renew the lease. Returns whether the life goes on."""
        requested, asleep = trio.current_time(), suspension.time_asleep()
        self._is_over = not await self._renew()
        if not self._is_over:
            self._requested, self._asleep = requested, asleep
            self._set_deadline()
        return not self._is_over

    async def renew_repeatedly(self) -> None:
        """Renew the lease periodically and after each sleep of the machine. Returns when the life is over."""
        while True:
            with trio.move_on_at(self._requested + _INTERVAL * self._lease):
                await self._woken.wait()
            self._woken = trio.Event()
            if not await self._renew_with_repetitions():
                self.scope.cancel()
                return

    async def watch_sleep(self) -> None:
        """Shorten the deadline by the time for which the machine was asleep: the clock of the event loop stood still."""
        asleep = self._asleep
        while True:
            asleep = await suspension.wait_machine_woken(asleep)
            self._set_deadline()
            self._woken.set()

    def time_left(self) -> float:
        """The seconds until the lease ends, at least. They are less than 0 only if the event loop was blocked."""
        return self.scope.deadline + _MARGIN * self._lease - trio.current_time()

    def why_lost(self) -> str:
        """Why the block was cancelled, and what follows."""
        if self._is_over:
            return _FOUND_DEAD
        reason = "" if self.failure is None else f" ({self.failure})"
        return (
            f"the lease of this daemon was not renewed for {(1 - _MARGIN) * self._lease:.3g} s{reason}; other daemons take over its "
            "devices, and the tasks that it ran are lost"
        )

    def _set_deadline(self) -> None:
        # The other clock may have been set back, on systems where it is the time of day.
        slept = max(suspension.time_asleep() - self._asleep, 0)
        self.scope.deadline = self._requested + (1 - _MARGIN) * self._lease - slept

    async def _renew_with_repetitions(self) -> bool:
        delay = _MIN_DELAY * self._lease
        while True:
            try:
                goes_on = await self.renew_once()
            except StoreError as error:
                if self.failure is None:
                    logger.warning(
                        "the lease of this daemon cannot be renewed, and is tried again until it ends: %s", error
                    )
                self.failure = error
            else:
                if self.failure is not None:
                    logger.info("the lease of this daemon is renewed again")
                self.failure = None
                return goes_on
            await trio.sleep(uniform(delay / 2, delay))  # noqa: S311  # jitter is not a secret
            delay = min(2 * delay, _MAX_DELAY * self._lease)
