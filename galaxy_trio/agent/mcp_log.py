"""What an MCP server causes to be logged. It is bounded, because a server can cause it at any rate: one short line, then a count."""

from __future__ import annotations

import logging
from collections import deque
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
_MAX_STDERR_LINE: Final = 500
"""Maximum number of bytes of a line of a server's stderr."""
_LAST_LINES: Final = 10
"""Number of the last lines of stderr that are kept."""
_MAX_WARNED: Final = 20
"""Number of different problems with tools that are logged."""


class ServerLog:
    """The problems that one server causes, and the last lines of its stderr. Made inside trio.

    Args:
        name: The server's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._output = LimitedLog(logger)
        self._warned: set[str] = set()
        self._line = b""
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._shown_lines: list[str] = []
        self._stderr_ended = trio.Event()
        self.exit_status: int | None = None
        """The exit status of the process that has ended last; None if there was none."""

    async def log_counts(self) -> None:
        """Log the counts until cancelled."""
        await self._output.log_counts()

    def problem_with_output(self, what: str) -> None:
        """Log or count a problem with what the server sends."""
        self._output.problem("MCP server %r: %s", self._name, what)

    def problem_with_tools(self, what: str) -> None:
        """Log a problem with the tools that the server lists, once, and no more than 20 different ones."""
        if what not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(what)
            last = "; further problems with its tools are not logged" if len(self._warned) == _MAX_WARNED else ""
            logger.warning("MCP server %r: %s%s", self._name, what, last)

    def start(self) -> None:
        """Forget what the previous process wrote."""
        self._line = b""
        self._last_lines.clear()
        self._stderr_ended = trio.Event()
        self.exit_status = None

    def stderr(self, data: bytes) -> None:
        """Take what the server's process wrote to stderr."""
        first, *more = data.split(b"\n")
        self._line += first[: _MAX_STDERR_LINE - len(self._line)]
        for following in more:
            self._end_line()
            self._line = following[:_MAX_STDERR_LINE]

    def stderr_ended(self) -> None:
        """Notify that the process has closed its stderr."""
        self._end_line()
        self._stderr_ended.set()

    async def wait_stderr_ended(self, seconds: float) -> None:
        """Wait until stderr has been read, for a limited time: another process may keep it open."""
        with trio.move_on_after(seconds):
            await self._stderr_ended.wait()

    def _end_line(self) -> None:
        line, self._line = self._line.decode(errors="replace").rstrip(), b""
        if line:
            self._last_lines.append(line)
            logger.debug("MCP server %r: %s", self._name, line)

    def log_last_lines(self) -> None:
        """Log the last lines of stderr, unless they are those that were logged last."""
        lines = list(self._last_lines)
        if lines != self._shown_lines:
            self._shown_lines = lines
            for line in lines:
                logger.warning("MCP server %r wrote: %s", self._name, line)

    @contextmanager
    def taking_the_sdks(self) -> Generator[None]:
        """Take what the SDK logs in the block, and in the tasks that it starts there."""
        before = _current.set(self)
        try:
            yield
        finally:
            _current.reset(before)


_current: ContextVar[ServerLog | None] = ContextVar("mcp_server_log", default=None)


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
