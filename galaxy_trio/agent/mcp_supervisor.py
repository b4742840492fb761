"""The tools of MCP servers, offered as the device's own: the servers are started over stdio, and again when they end.

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
from galaxy_trio.errors import ConfigError, ToolError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from galaxy_trio.agent.mcp_server import ListedTool, McpServer, OpenSession, Session
    from galaxy_trio.agent.tools import Tool

logger: Final = logging.getLogger(__name__)

_LEAST_DELAY: Final = 1.0
_MOST_DELAY: Final = 60.0
_SETTLED: Final = 60.0
"""Seconds that a server must have lived for its next restart to count as the first."""

_limit = ThreadLimit("importing the MCP SDK", 1)


class _McpTool:
    def __init__(self, listed: ListedTool, server: _RunningServer) -> None:
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

    async def call(self, parameters: dict[str, JSON]) -> JSON:
        return await self._server.call(self.name, parameters)


class _RunningServer:
    """A server that is started again whenever it has ended, and its tools, which stay while it is down."""

    def __init__(self, server: McpServer, open_session: OpenSession) -> None:
        self._server = server
        self._open_session = open_session
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
        return await self._session.call(name, parameters)

    async def run(self, tried: Callable[[ConfigError | None], None]) -> None:
        """Keep the server running.

        Args:
            tried: Called once, when the first try has come to something: with the error if the program cannot be started
                at all, which ends this; else with None.
        """
        first = True

        def tried_once(error: ConfigError | None) -> None:
            nonlocal first
            if first:
                first = False
                tried(error)

        failures = 0
        while True:
            was_first = first
            try:
                lived = await self._live(lambda: tried_once(None))
            except ConfigError as error:
                tried_once(error)
                if was_first:
                    return
                lived, self._problem = 0.0, str(error)
            if lived >= _SETTLED:
                failures = 0
            delay = _delay(failures)
            failures += 1
            logger.warning("MCP server %r: %s; it is started again in %.1f s", self.name, self._problem, delay)
            await trio.sleep(delay)

    async def _live(self, tried: Callable[[], None]) -> float:
        """One life of it. Sets the problem that ended it.

        Returns:
            Seconds that it was of use.
        """
        async with self._open_session(self._server) as session:
            problem = await self._list(session, start=True)
            if problem is not None:
                self._problem = problem
                # Now, and not after the process has ended, which may take its time.
                tried()
                return 0.0
            began = trio.current_time()
            self._session = session
            logger.info("MCP server %r runs, with %d tools", self.name, len(self.tools))
            tried()
            try:
                while await session.wait_list_changed():
                    problem = await self._list(session)
                    if problem is not None:
                        logger.warning("MCP server %r cannot say what its tools are now: %s", self.name, problem)
            finally:
                self._session = None
                self._problem = "it has ended"
            return trio.current_time() - began

    async def _list(self, session: Session, *, start: bool = False) -> str | None:
        """Ask for the tools. Returns why that failed, in words."""
        try:
            with trio.move_on_after(self._server.start_timeout):
                if start:
                    await session.initialize()
                listed = await session.list_tools()
                self.tools = tuple(_McpTool(tool, self) for tool in listed)
                return None
        except ToolError as error:
            return str(error)
        return f"it did not answer within {self._server.start_timeout:g} s"


class McpTools:
    """The tools of all MCP servers. Made by `open_mcp_tools`."""

    def __init__(self, servers: Sequence[_RunningServer]) -> None:
        self._servers = servers

    def tools(self) -> Sequence[Tool]:
        """The tools, as the servers have listed them last. Those of a server that is down stay: calling them says so."""
        return [tool for server in self._servers for tool in server.tools]


@asynccontextmanager
async def open_mcp_tools(servers: Iterable[McpServer]) -> AsyncGenerator[McpTools]:
    """Start MCP servers, for the length of the block.

    The block is entered when each has listed its tools, or has failed to. One that ends, or has not answered, is started
    again: after up to 1 s, doubling to 60 s while it goes on failing. Until then its tools raise `ToolError`, at once.

    Leaving the block, and cancelling it, ends the servers: their input is closed; one that still runs 2.5 s later is sent
    SIGTERM, and SIGKILL after 2 s more. Cancelling a call tells the server, which takes up to 5 s if it does not read.

    Args:
        servers: What to start, each under a name of its own.

    Raises:
        ConfigError: The program of one cannot be started, two have the same name, or the extra is not installed.
    """
    servers = tuple(servers)
    names = [server.name for server in servers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two MCP servers are named {name!r}: give one another name, as in name=COMMAND")
    if not servers:
        yield McpTools(())
        return
    open_session = await trio.to_thread.run_sync(_load, limiter=_limit.get())
    running = [_RunningServer(server, open_session) for server in servers]
    async with open_background() as nursery:
        tries, first_tries = trio.open_memory_channel[ConfigError | None](len(running))
        for server in running:
            nursery.start_soon(server.run, tries.send_nowait)
        for _ in running:
            refused = await first_tries.receive()
            if refused is not None:
                raise refused
        yield McpTools(running)


def _load() -> OpenSession:
    """Import what needs the SDK. In a thread: that takes about a second."""
    try:
        from galaxy_trio.agent.mcp_session import open_session  # noqa: PLC0415  # an extra, and slow
    except ImportError as error:
        raise ConfigError("MCP servers need an extra: pip install galaxy_trio[mcp]") from error
    return open_session


def _delay(failures: int) -> float:
    """Seconds to wait before the next start, after so many since the last good life."""
    return random.uniform(0, min(_MOST_DELAY, _LEAST_DELAY * 2 ** min(failures, 10)))  # noqa: S311  # nobody gains by guessing
