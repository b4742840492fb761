"""Supervises MCP servers, whose tools a device offers as its own: starts or connects to them, and again when they end.

Needs the extra: ``pip install "galaxy_trio[mcp]"``. The SDK is imported when servers are opened, not before.
"""

from __future__ import annotations

import logging
import math
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._arguments import check_positive
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._connection.backoff import FIRST, MAXIMUM, STEADY
from galaxy_trio._counted import counted
from galaxy_trio.agent.mcp_log import ServerLog
from galaxy_trio.agent.mcp_server import Limits
from galaxy_trio.errors import ConfigError, ToolError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from galaxy_trio.agent.mcp_server import ListedTool, McpServer, OpenSession, Session
    from galaxy_trio.agent.tool_description import ToolDescription
    from galaxy_trio.agent.tools import Tool

logger: Final = logging.getLogger(__name__)

_LOGGED_FAILURES: Final = 3
"""Number of failures in a row that are logged."""
_PATIENCE: Final = 10.0
"""Seconds after which a first start is logged that takes long."""
_LIST_PAUSE: Final = 1.0
"""Seconds between two lists of tools: a server may report each list as changed."""
MAX_MESSAGE_SIZE: Final = 32 * 2**20
"""Default size of a server's message in bytes."""
MEMORY_LIMIT: Final = 4 * MAX_MESSAGE_SIZE
"""Default number of bytes of unfinished messages of all servers together."""

_limit = ThreadLimit("importing the MCP SDK", 1)


class _McpTool:
    def __init__(self, listed: ListedTool, server: _Supervisor) -> None:
        self._listed = listed
        self._server = server

    @property
    def name(self) -> str:
        return self._listed.name

    @property
    def namespace(self) -> str:
        return self._server.name

    @property
    def tool_type(self) -> ToolType:
        return ToolType.DATA_COLLECTION if self._listed.read_only else ToolType.ACTION

    @property
    def timeout(self) -> float:
        # The session limits a call, and knows its progress.
        return math.inf

    @property
    def description(self) -> ToolDescription:
        return self._listed.description

    async def call(self, parameters: dict[str, JSON]) -> JSON:
        return await self._server.call(self.name, parameters)


class _Supervisor:
    """Restarts a server whenever it has ended. Its tools stay listed while it is down.

    Args:
        server: The server.
        open_session: Starts the server's process and opens a session with it.
        limits: What all servers share.
        first_try_done: Called once, after the first try: with the error if the program cannot be started, which also ends the
            supervisor; with None otherwise.
    """

    def __init__(
        self,
        server: McpServer,
        open_session: OpenSession,
        limits: Limits,
        first_try_done: Callable[[ConfigError | None], None],
    ) -> None:
        self._server = server
        self._open_session = open_session
        self._limits = limits
        self._first_try_done = first_try_done
        self._tried = False
        self._failures = 0
        self._log = ServerLog(server.name)
        self._session: Session | None = None
        self._problem = "it has not started yet"
        self.tools: tuple[_McpTool, ...] = ()

    @property
    def name(self) -> str:
        return self._server.name

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        if self._session is None:
            raise ToolError(f"MCP server {self.name!r} is not running: {self._problem}")
        with self._log.taking_the_sdks():
            return await self._session.call(name, parameters)

    async def run(self) -> None:
        """Keep the server running."""
        with self._log.taking_the_sdks():
            async with open_background() as nursery:
                nursery.start_soon(self._log.log_counts)
                nursery.start_soon(self._log_waiting)
                await self._keep_running()

    async def _log_waiting(self) -> None:
        await trio.sleep(_PATIENCE)
        if not self._tried:
            limit = self._server.start_timeout
            logger.info("waiting for MCP server %r to list its tools (start_timeout: %g s)", self.name, limit)

    async def _keep_running(self) -> None:
        while True:
            try:
                lived = await self._run_once()
            except ConfigError as error:
                if not self._tried:
                    self._first_try_done(error)
                    return
                lived, self._problem = 0.0, str(error)
            if lived >= STEADY:
                self._failures = 0
            delay = _delay(self._failures)
            self._failures += 1
            self._log_restart(delay)
            await trio.sleep(delay)

    def _log_restart(self, delay: float) -> None:
        """Log the problem, and fall silent after a few restarts in a row."""
        level = logging.WARNING if self._failures <= _LOGGED_FAILURES else logging.DEBUG
        last = ""
        if self._failures == _LOGGED_FAILURES:
            last = f", and again with delays up to {MAXIMUM:g} s; this is not logged again until it has run for {STEADY:g} s"
        logger.log(level, "MCP server %r: %s; trying again in %.1f s%s", self.name, self._problem, delay, last)
        if level == logging.WARNING:
            self._log.log_last_lines()

    def _try_done(self) -> None:
        if not self._tried:
            self._tried = True
            self._first_try_done(None)

    async def _run_once(self) -> float:
        """Run the server until it ends, and set the problem that ended it.

        Returns:
            Seconds for which it was usable.
        """
        self._log.start()
        lived = 0.0
        async with self._open_session(self._server, self._limits, self._log) as session:
            problem = await self._list_tools(session, start=True)
            if problem is None:
                began = trio.current_time()
                self._session = session
                logger.log(
                    logging.DEBUG if self._failures > _LOGGED_FAILURES else logging.INFO,
                    "MCP server %r is running, with %s",
                    self.name,
                    counted(len(self.tools), "tool"),
                )
                self._try_done()
                try:
                    while await session.wait_list_changed():
                        failed = await self._list_tools(session)
                        if failed is not None:
                            self._log.problem_with_tools(f"failed to list its changed tools: {failed}")
                        await trio.sleep(_LIST_PAUSE)
                finally:
                    self._session = None
                    self._problem = "it has ended"
                problem = "it has ended"
                lived = trio.current_time() - began
            self._problem = session.problem or problem
            # Before the process has ended, which may take some seconds.
            self._try_done()
        if session.problem is None and self._log.exit_status is not None:
            self._problem += f" ({_status(self._log.exit_status)})"
        return lived

    async def _list_tools(self, session: Session, *, start: bool = False) -> str | None:
        """Request the tools. Returns the reason if that failed."""
        deadline = trio.current_time() + self._server.start_timeout
        try:
            if start:
                with trio.CancelScope(deadline=deadline) as limit:
                    await session.initialize()
                if limit.cancelled_caught:
                    return f"it did not reply within {self._server.start_timeout:g} s"
            listed = await session.list_tools(deadline)
        except ToolError as error:
            return str(error)
        self.tools = tuple(_McpTool(tool, self) for tool in listed)
        return None


def _status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


class McpTools:
    """The tools of all MCP servers, a `ToolSource`. Made by `open_mcp_tools`."""

    def __init__(self, servers: Sequence[_Supervisor]) -> None:
        self._servers = servers

    def tools(self) -> Sequence[Tool]:
        """Return the tools that the servers last listed. Those of a server that is down stay: calling them raises `ToolError`."""
        return [tool for server in self._servers for tool in server.tools]


@asynccontextmanager
async def open_mcp_tools(
    servers: Iterable[McpServer], *, max_message_size: int = MAX_MESSAGE_SIZE, memory_limit: int = MEMORY_LIMIT
) -> AsyncGenerator[McpTools]:
    """Run MCP servers, or connect to them, until the block ends.

    The block is entered once each server has listed its tools or failed to. A server that ends or does not reply is restarted:
    after up to 1 s, doubling to 60 s while it keeps failing. Until then its tools raise `ToolError` immediately. A server that sends
    too large a message is restarted as well.

    Leaving or cancelling the block ends the servers: their input is closed; a server still running after 2.5 s gets SIGTERM, and
    SIGKILL after 2 s more. A session over HTTP is ended within 2 s. Cancelling a call notifies the server, which takes up to 5 s if it
    does not read.

    Args:
        servers: The servers, each with a unique name.
        max_message_size: Bytes that one message of a server may have.
        memory_limit: Bytes that the unfinished messages of all started servers together may have. Above three quarters of it, those with
            more than their part are read no further; at the limit, the one with the most is restarted.

    Raises:
        ConfigError: A server's program cannot be started, two servers have the same name, or the extra is not installed.
    """
    check_positive(max_message_size=max_message_size, memory_limit=memory_limit)
    servers = tuple(servers)
    names = [server.name for server in servers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two MCP servers are named {name!r}: rename one of them, as in name=COMMAND")
    if not servers:
        yield McpTools(())
        return
    open_session = await trio.to_thread.run_sync(_load, limiter=_limit.get())
    send, receive = trio.open_memory_channel[ConfigError | None](len(servers))
    limits = Limits(max_message_size, MemoryBudget(memory_limit))
    supervisors = [_Supervisor(server, open_session, limits, send.send_nowait) for server in servers]
    async with open_background() as nursery:
        for supervisor in supervisors:
            nursery.start_soon(supervisor.run)
        for _ in supervisors:
            error = await receive.receive()
            if error is not None:
                raise error
        yield McpTools(supervisors)


def _load() -> OpenSession:
    """Import the SDK. Run in a thread, because it takes about a second."""
    try:
        from galaxy_trio.agent.mcp_session import open_session  # noqa: PLC0415  # an extra, and slow
    except ImportError as error:
        raise ConfigError('MCP servers need an extra: pip install "galaxy_trio[mcp]"') from error
    return open_session


def _delay(failures: int) -> float:
    """Seconds to wait before a restart, after a number of failures in a row."""
    return random.uniform(0, min(MAXIMUM, FIRST * 2 ** min(failures, 10)))  # noqa: S311  # jitter is no secret
