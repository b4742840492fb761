"""What the MCP SDK logs because of a server: one short line, then a count, because a server can cause it at any rate.

By default the SDK logs a traceback for each line of a server's output that is not a message.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.limited_log import LimitedLog

if TYPE_CHECKING:
    from collections.abc import Generator

logger: Final = logging.getLogger(__name__)

_MAX_LINE: Final = 200
"""Maximum number of characters of what the SDK says."""


class ServerLog:
    """The problems that one server causes. Made inside trio.

    Args:
        name: The server's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._output = LimitedLog(logger)
        self._tools = LimitedLog(logger)

    async def log_counts(self) -> None:
        """Log the counts until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._output.log_counts)
            nursery.start_soon(self._tools.log_counts)

    def problem_with_output(self, what: str) -> None:
        """Log or count a problem with what the server sends."""
        self._output.problem("MCP server %r: %s", self._name, what)

    def problem_with_tools(self, what: str) -> None:
        """Log or count a problem with the tools that the server lists."""
        self._tools.problem("MCP server %r: %s", self._name, what)

    @contextmanager
    def taking_the_sdks(self) -> Generator[None]:
        """Take what the SDK logs in the block, and in the tasks that it starts there."""
        before = _current.get()
        _current.set(self)
        try:
            yield
        finally:
            _current.set(before)


_current: ContextVar[ServerLog | None] = ContextVar("mcp_server_log", default=None)


def current_log(name: str) -> ServerLog:
    """Return the log of the server that the current task works for; a new one if it works for none."""
    return _current.get() or ServerLog(name)


class _Filter(logging.Filter):
    """Takes warnings and errors that a server causes. All others are left to the loggers of the SDK."""

    def filter(self, record: logging.LogRecord) -> bool:
        server = _current.get()
        # A thread inherits the context, but has no clock.
        if server is None or record.levelno < logging.WARNING or not trio.lowlevel.in_trio_run():
            return True
        # The traceback is left out: it shows the SDK's code, and the server's text at any length.
        server.problem_with_output(" ".join(record.getMessage()[: 2 * _MAX_LINE].split())[:_MAX_LINE])
        return False


_FILTER: Final = _Filter()


def install_filter() -> None:
    """Install the filter in all loggers of the SDK. Call it after the SDK has been imported; the second call changes nothing."""
    for name, found in list(logging.root.manager.loggerDict.items()):
        # The session's logger is named "client".
        if isinstance(found, logging.Logger) and (name == "client" or name.partition(".")[0] == "mcp"):
            found.addFilter(_FILTER)
