"""Work that belongs to others and can be stopped all at once, with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType


class CancelGroup:
    """Pieces of work, each in its own caller's task."""

    def __init__(self) -> None:
        # Why it is to stop, once it is to.
        self._work: dict[trio.CancelScope, Callable[[], Exception] | None] = {}
        self._closed: Callable[[], Exception] | None = None
        self._one_ended = trio.lowlevel.ParkingLot()

    @property
    def closed(self) -> bool:
        """Whether nothing may begin any more."""
        return self._closed is not None

    def guard(self) -> AbstractContextManager[trio.CancelScope]:
        """Do work that `stop` stops. The block gets the scope that would be cancelled.

        Raises:
            Exception: What `stop` was given, when it stopped the block; what `close` was given, when that was before the block.
        """
        return _Guard(self)

    def begin(self, scope: trio.CancelScope) -> None:
        """A piece of work begins in a scope: called by its guard."""
        if self._closed is not None:
            raise self._closed()
        self._work[scope] = None

    def end(self, scope: trio.CancelScope) -> Callable[[], Exception] | None:
        """It has ended: returns why it was stopped, if it was."""
        why = self._work.pop(scope)
        self._one_ended.unpark_all()
        return why

    def stop(self, why: Callable[[], Exception]) -> None:
        """Stop all that goes on now; each piece raises an error of its own. What begins later goes on."""
        for scope in self._work:
            self._work[scope] = why
            scope.cancel()

    def close(self, why: Callable[[], Exception]) -> None:
        """Let nothing begin from now on; what goes on is for `stop`."""
        self._closed = why

    async def wait_stopped(self) -> None:
        """Wait until nothing goes on that was to stop."""
        await trio.lowlevel.checkpoint()
        while any(why is not None for why in self._work.values()):
            await self._one_ended.park()


class _Guard:
    """Around a piece of work."""

    def __init__(self, stops: CancelGroup) -> None:
        self._stops = stops
        self._scope = trio.CancelScope()

    def __enter__(self) -> trio.CancelScope:
        self._stops.begin(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        why = None
        try:
            handled = self._scope.__exit__(kind, error, traceback)
        finally:
            why = self._stops.end(self._scope)
        if why is not None and self._scope.cancelled_caught:
            raise why() from None
        return handled
