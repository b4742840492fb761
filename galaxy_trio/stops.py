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
        self._work: dict[trio.CancelScope, Callable[[], Exception] | None] = {}
        self._none_left = trio.Event()

    @contextmanager
    def guard(self) -> Generator[trio.CancelScope]:
        """Do work that `stop` stops. The block gets the scope that would be cancelled.

        Raises:
            Exception: What `stop` was given, when it stopped the block.
        """
        scope = trio.CancelScope()
        self._work[scope] = None
        why = None
        try:
            with scope:
                yield scope
        finally:
            why = self._work.pop(scope)
            if not self._work:
                self._none_left.set()
        if why is not None and scope.cancelled_caught:
            raise why()

    def stop(self, why: Callable[[], Exception]) -> None:
        """Stop all that goes on now; each piece raises an error of its own."""
        for scope in self._work:
            self._work[scope] = why
            scope.cancel()

    async def wait_none(self) -> None:
        """Wait until nothing goes on."""
        while self._work:
            self._none_left = trio.Event()
            await self._none_left.wait()
