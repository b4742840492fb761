"""Work in several callers' tasks that can be stopped together, with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType


class CancelGroup:
    """Blocks of work, each in its own caller's task, that can be stopped together."""

    def __init__(self) -> None:
        # Each block's scope, with the reason to stop it, if it was stopped.
        self._work: dict[trio.CancelScope, Callable[[], Exception] | None] = {}
        self._closed: Callable[[], Exception] | None = None
        self._one_ended = trio.lowlevel.ParkingLot()

    @property
    def closed(self) -> bool:
        """Whether no more work may begin."""
        return self._closed is not None

    def guard(self) -> AbstractContextManager[trio.CancelScope]:
        """Run a block of work that `stop` can stop. The block receives its cancel scope.

        Raises:
            Exception: The reason given to `stop`, if it stopped the block; the reason given to `close`, if that came before the block.
        """
        return _Guard(self)

    def begin(self, scope: trio.CancelScope) -> None:
        """Record that a block of work begins. Called by its guard."""
        if self._closed is not None:
            raise self._closed()
        self._work[scope] = None

    def end(self, scope: trio.CancelScope) -> Callable[[], Exception] | None:
        """Record that a block of work has ended. Returns the reason to stop it, if it was stopped. Called by its guard."""
        why = self._work.pop(scope)
        self._one_ended.unpark_all()
        return why

    def stop(self, why: Callable[[], Exception]) -> None:
        """Stop all current blocks; each raises an error object of its own. Later blocks are not affected."""
        for scope in self._work:
            self._work[scope] = why
            scope.cancel()

    def close(self, why: Callable[[], Exception]) -> None:
        """Let no more work begin. Use `stop` to stop the current work."""
        self._closed = why

    async def wait_stopped(self) -> None:
        """Wait until every stopped block has ended."""
        await trio.lowlevel.checkpoint()
        while any(why is not None for why in self._work.values()):
            await self._one_ended.park()


class _Guard:
    """The context manager of one block of work. A generator would take longer, once for each task."""

    def __init__(self, group: CancelGroup) -> None:
        self._group = group
        self._scope = trio.CancelScope()

    def __enter__(self) -> trio.CancelScope:
        self._group.begin(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            handled = self._scope.__exit__(kind, error, traceback)
        finally:
            why = self._group.end(self._scope)
        if why is not None and self._scope.cancelled_caught:
            raise why() from None
        return handled
