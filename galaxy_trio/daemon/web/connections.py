"""The places of the daemon's HTTP connections: their number is limited, and those without a request give way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class NoPlace(Exception):
    """All places are taken by connections with a request."""


class Places:
    """At most a number of places. A newcomer gets the place of the connection that has been without a request for the longest time.

    So connections that send nothing, or the beginning of a request, or nothing after a response, exclude no others.

    Args:
        maximum: The number of places.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._taken = 0
        # In the order in which they became idle.
        self._idle: dict[trio.CancelScope, None] = {}

    @contextmanager
    def take(self) -> Generator[Callable[[bool], None]]:
        """Take a place for a new connection inside the block, which is cancelled when the place is given to a newcomer.

        Yields:
            A function that notes whether the connection is without a request, as it is at its beginning.

        Raises:
            NoPlace: All places are taken by connections with a request.
        """
        if self._taken < self._maximum:
            self._taken += 1
        elif self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.cancel()
        else:
            raise NoPlace
        scope = trio.CancelScope()

        def set_idle(idle: bool) -> None:  # its only argument
            self._idle.pop(scope, None)
            if idle:
                self._idle[scope] = None

        set_idle(True)
        try:
            with scope:
                yield set_idle
        finally:
            self._idle.pop(scope, None)
            # Otherwise, a newcomer has the place.
            if not scope.cancel_called:
                self._taken -= 1
