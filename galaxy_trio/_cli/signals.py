"""Running a command's work in trio until it ends or a signal stops it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from galaxy_trio._concurrency.background import open_background, split_cancelled
from galaxy_trio.errors import GalaxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")

_FROM_PEOPLE: Final = (signal.SIGINT, signal.SIGTERM)
"""When these arrive again, somebody is impatient. SIGHUP arrives twice when a terminal is closed, from the system and from the shell."""


class Interrupted(Exception):
    """A signal ended the work.

    Attributes:
        signal_number: The number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def is_ignored(name: str) -> bool:
    """Whether this process ignores a signal, as ``nohup`` makes it do with SIGHUP, or the system does not have it."""
    number: int | None = getattr(signal, name, None)
    return number is None or signal.getsignal(number) is signal.SIG_IGN


def _ending_signals(*, hangup: bool) -> tuple[signal.Signals, ...]:
    hangups = () if not hangup or is_ignored("SIGHUP") else (signal.SIGHUP,)
    return (*_FROM_PEOPLE, *hangups)


async def wait_signalled(on_signal: Callable[[int], None]) -> None:
    """Wait for Ctrl-C, SIGTERM or the end of the terminal, and call a function with the signal's number.

    For work in `run_until_signalled` that ends in good order then. The next signal is left to that function, which cancels the work.
    """
    with trio.open_signal_receiver(*_ending_signals(hangup=True)) as signals:
        on_signal(await anext(signals))


async def run_until_signalled(
    work: Callable[[], Awaitable[T]], stop: trio.Event | None = None, *, hangup: bool = True
) -> T:
    """Run the work. Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) cancel it.

    Args:
        work: The async function to run.
        stop: If the work waits for this event when the first signal arrives, the signal sets it instead: the work then ends cleanly.
        hangup: Whether SIGHUP is such a signal. In any case, it stays ignored if it is.

    Raises:
        Interrupted: A signal cancelled the work.
    """
    signalled: list[int] = []
    with trio.open_signal_receiver(*_ending_signals(hangup=hangup)) as signals:
        try:
            async with open_background() as nursery:
                with trio.CancelScope() as scope:

                    async def watch() -> None:
                        async for number in signals:
                            if stop is not None and stop.statistics().tasks_waiting:
                                stop.set()
                            elif stop is None or not stop.is_set() or number in _FROM_PEOPLE:
                                signalled.append(number)
                                scope.cancel()

                    nursery.start_soon(watch)
                    return await work()
        except Exception:
            # Errors of work that a signal is stopping are not reported.
            if not signalled:
                raise
    raise Interrupted(signalled[0])


def run_trio(work: Callable[[], Awaitable[T]], stop: trio.Event | None = None, *, hangup: bool = True) -> T:
    """Run the work in trio; see `run_until_signalled`. A known error that is alone in an exception group is raised without the group."""
    try:
        return trio.run(partial(run_until_signalled, work, stop, hangup=hangup))
    except BaseExceptionGroup as group:
        _, error = split_cancelled(group)
        if not isinstance(error, GalaxyError | OSError):
            raise
    raise error


@contextmanager
def exiting_on_ctrl_c() -> Generator[None]:
    """Let Ctrl-C end the process immediately, with status 130, for the length of the block.

    For blocking work that needs no clean-up. A `KeyboardInterrupt` is lost if it is raised where Python ignores exceptions, such as in a
    destructor, and the process would continue.
    """

    def leave(number: int, _: object) -> None:
        os._exit(128 + number)

    previous = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def run_service(service: Callable[[trio.Event], Awaitable[None]], *, hangup: bool = True) -> int:
    """Run a service until a signal stops it.

    Args:
        service: Takes an event and waits for it when everything is set up. The first signal sets the event; a signal that arrives
            before the service waits, or a second one, cancels the service.
        hangup: Whether SIGHUP is such a signal; see `run_until_signalled`.

    Returns:
        The exit status: 0.
    """
    stop = trio.Event()
    try:
        run_trio(partial(service, stop), stop, hangup=hangup)
    except Interrupted:
        return 0
    return 0
