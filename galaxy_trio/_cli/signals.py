"""How a command's work ends by itself, and by Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from galaxy_trio._concurrency.background import open_background, split_cancelled
from galaxy_trio.errors import GalaxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Interrupted(Exception):
    """A signal has ended the work.

    Attributes:
        signal_number: Which signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


async def until_signalled(work: Callable[[], Awaitable[T]], stop: trio.Event | None = None) -> T:
    """Do the work. Ctrl-C and SIGTERM cancel it.

    Args:
        work: What to do.
        stop: If the work waits for this when the first signal comes, it is set instead: the work then ends in good order.

    Raises:
        Interrupted: It was cancelled, and has ended.
    """
    signalled: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with open_background() as nursery:
                with trio.CancelScope() as scope:

                    async def watch() -> None:
                        async for number in signals:
                            if stop is not None and stop.statistics().tasks_waiting:
                                stop.set()
                            else:
                                signalled.append(number)
                                scope.cancel()

                    nursery.start_soon(watch)
                    return await work()
        except Exception:
            # What goes wrong while it is being stopped interests nobody.
            if not signalled:
                raise
    raise Interrupted(signalled[0])


def run_trio(work: Callable[[], Awaitable[T]], stop: trio.Event | None = None) -> T:
    """Do the work in trio; see `until_signalled`. A known error comes out bare, out of groups too in which it is the only one."""
    try:
        return trio.run(until_signalled, work, stop)
    except BaseExceptionGroup as group:
        _, error = split_cancelled(group)
        if not isinstance(error, GalaxyError | OSError):
            raise
    raise error


def run_service(service: Callable[[trio.Event], Awaitable[None]]) -> int:
    """Run what goes on until a signal stops it, which is how it ends well.

    Args:
        service: Gets an event, and waits for it when all is set up. The first signal sets it; one that comes before or after that cancels.

    Returns:
        The exit status: 0.
    """
    stop = trio.Event()
    try:
        run_trio(partial(service, stop), stop)
    except Interrupted:
        return 0
    return 0
