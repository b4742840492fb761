"""Supervises MCP servers, whose tools a device offers as its own: starts them over stdio, restarts them when they end.

Needs the extra: ``pip install galaxy_trio[mcp]``. The SDK is imported when servers are opened, not before.
"""

from __future__ import annotations

import logging
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.background import open_background
from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._connection.backoff import FIRST, MAXIMUM, STEADY
from galaxy_trio._counted import counted
from galaxy_trio.agent.mcp_log import ServerLog
from galaxy_trio.errors import ConfigError, ToolError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from galaxy_trio.agent.mcp_server import ListedTool, McpServer, OpenSession, Session
    from galaxy_trio.agent.tool_description import ToolDescription
    from galaxy_trio.agent.tools import Tool

logger: Final = logging.getLogger(__name__)

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
        return self._server.timeout

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
        first_try_done: Called once, after the first try: with the error if the program cannot be started, which also ends the
            supervisor; with None otherwise.
    """

    def __init__(
        self, server: McpServer, open_session: OpenSession, first_try_done: Callable[[ConfigError | None], None]
    ) -> None:
        self._server = server
        self._open_session = open_session
        self._first_try_done = first_try_done
        self._tried = False
        self._log = ServerLog(server.name)
        self._session: Session | None = None
        self._problem = "it has not started yet"
        self.tools: tuple[_McpTool, ...] = ()

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def timeout(self) -> float:
        return self._server.timeout

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
                await self._keep_running()

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            try:
                lived = await self._run_once()
            except ConfigError as error:
                if not self._tried:
                    self._first_try_done(error)
                    return
                lived, self._problem = 0.0, str(error)
            if lived >= STEADY:
                failures = 0
            delay = _delay(failures)
            failures += 1
            logger.warning("MCP server %r: %s; restarting it in %.1f s", self.name, self._problem, delay)
            await trio.sleep(delay)

    def _try_done(self) -> None:
        if not self._tried:
            self._tried = True
            self._first_try_done(None)

    async def _run_once(self) -> float:
        """Run the server until it ends, and set the problem that ended it.

        Returns:
            Seconds for which it was usable.
        """
        async with self._open_session(self._server) as session:
            problem = await self._list_tools(session, start=True)
            if problem is not None:
                self._problem = problem
                # Before the process has ended, which may take some seconds.
                self._try_done()
                return 0.0
            began = trio.current_time()
            self._session = session
            logger.info("MCP server %r is running, with %s", self.name, counted(len(self.tools), "tool"))
            self._try_done()
            try:
                while await session.wait_list_changed():
                    problem = await self._list_tools(session)
                    if problem is not None:
                        self._log.problem_with_tools(f"failed to list its changed tools: {problem}")
            finally:
                self._session = None
                self._problem = "it has ended"
            return trio.current_time() - began

    async def _list_tools(self, session: Session, *, start: bool = False) -> str | None:
        """Request the tools. Returns the reason if that failed."""
        try:
            with trio.move_on_after(self._server.start_timeout):
                if start:
                    await session.initialize()
                listed = await session.list_tools()
                self.tools = tuple(_McpTool(tool, self) for tool in listed)
                return None
        except ToolError as error:
            return str(error)
        return f"it did not reply within {self._server.start_timeout:g} s"


class McpTools:
    """The tools of all MCP servers, a `ToolSource`. Made by `open_mcp_tools`."""

    def __init__(self, servers: Sequence[_Supervisor]) -> None:
        self._servers = servers

    def tools(self) -> Sequence[Tool]:
        """Return the tools that the servers last listed. Those of a server that is down stay: calling them raises `ToolError`."""
        return [tool for server in self._servers for tool in server.tools]


@asynccontextmanager
async def open_mcp_tools(servers: Iterable[McpServer]) -> AsyncGenerator[McpTools]:
    """Run MCP servers until the block ends.

    The block is entered once each server has listed its tools or failed to. A server that ends or does not reply is restarted:
    after up to 1 s, doubling to 60 s while it keeps failing. Until then its tools raise `ToolError` immediately.

    Leaving or cancelling the block ends the servers: their input is closed; a server still running after 2.5 s gets SIGTERM, and
    SIGKILL after 2 s more. Cancelling a call notifies the server, which takes up to 5 s if it does not read.

    Args:
        servers: The servers, each with a unique name.

    Raises:
        ConfigError: A server's program cannot be started, two servers have the same name, or the extra is not installed.
    """
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
    supervisors = [_Supervisor(server, open_session, send.send_nowait) for server in servers]
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
        raise ConfigError("MCP servers need an extra: pip install galaxy_trio[mcp]") from error
    return open_session


def _delay(failures: int) -> float:
    """Seconds to wait before a restart, after a number of failures in a row."""
    return random.uniform(0, min(MAXIMUM, FIRST * 2 ** min(failures, 10)))  # noqa: S311  # jitter is no secret
