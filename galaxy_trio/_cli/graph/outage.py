"""An outage of the daemon while a graph is followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from galaxy_trio._cli.daemon_refused import DaemonRefused
from galaxy_trio._cli.terminal import echo, sentence_of
from galaxy_trio._cli.times import duration
from galaxy_trio.errors import ConnectFailed, RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_PATIENCE: Final = 300.0
"""Seconds without the daemon after which following ends: a machine may be restarted in between."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts to connect again: the first, which doubles with each, and the longest."""
_AWAY: Final = (502, 503, 504)
"""The statuses of a daemon that starts, or stops, or has lost its database, and of a proxy that does not reach one."""


class Outage:
    """Attempts again what failed because the daemon was away.

    Args:
        shown: The daemon's address.
        graph_id: The graph, for the error at the end.
    """

    def __init__(self, shown: str, graph_id: str) -> None:
        self._shown = shown
        self._graph_id = graph_id
        self._began: float | None = None
        self._pause = _FIRST_PAUSE

    def end(self) -> None:
        """The daemon is there: an attempt that fails from now on is another outage."""
        if self._began is not None:
            notify(f"the daemon at {self._shown} is back")
        self._began, self._pause = None, _FIRST_PAUSE

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempt something until the daemon answers."""
        while True:
            try:
                result = await attempt()
            except (ConnectFailed, RequestTimeout) as error:
                why = str(error)
            except DaemonRefused as error:
                if error.status not in _AWAY:
                    raise
                why = str(error)
            else:
                self.end()
                return result
            await self._wait(why)

    async def _wait(self, why: str) -> None:
        now = trio.current_time()
        if self._began is None:
            self._began = now
            notify(f"the daemon at {self._shown} is away (trying again for {duration(_PATIENCE)})")
        elif now - self._began > _PATIENCE:
            raise ConnectFailed(
                f"{why}; the graph is in the daemon's database: galaxy-trio graph show {self._graph_id} --wait follows it"
            )
        await trio.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def notify(sentence: str) -> None:
    """Say something on stderr, in one line."""
    echo(sentence_of(sentence), err=True)
