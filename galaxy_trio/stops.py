"""Work that belongs to others and can be stopped all at once, with a reason."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Stops:
    """Pieces of work, each in its own caller's task."""

    def __init__(self) -> None:
        # Why it is to stop, once it is to.
        self._work: dict[trio.CancelScope, Callable[[], Exception] | None] = {}
        self._closed: Callable[[], Exception] | None = None
        self._one_ended = trio.Event()

    @contextmanager
    def guard(self) -> Generator[trio.CancelScope]:
        """Do work that `stop` stops. The block gets the scope that would be cancelled.

        Raises:
            Exception: What `stop` was given, when it stopped the block; what `close` was given, when that was before the block.
        """
        if self._closed is not None:
            raise self._closed()
        scope = trio.CancelScope()
        self._work[scope] = None
        why = None
        try:
            with scope:
                yield scope
        finally:
            why = self._work.pop(scope)
            self._one_ended.set()
            self._one_ended = trio.Event()
        if why is not None and scope.cancelled_caught:
            raise why()

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
            await self._one_ended.wait()
