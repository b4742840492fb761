"""A session with an MCP server, on the official SDK. Maps the SDK's errors to this package's.

The SDK is an extra and slow to import: only `galaxy_trio.agent.mcp_supervisor` imports this module, when servers are opened.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from mcp.client.session import ClientSession, IncomingMessage
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp_types import (
    CONNECTION_CLOSED,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolRequest,
    CallToolRequestParams,
    EmptyResult,
    JSONRPCRequest,
    PaginatedRequestParams,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency.background import contains_cancelled, open_background, raise_outcome, split_cancelled
from galaxy_trio.agent.command_runner import one_line
from galaxy_trio.agent.mcp_dispatcher import RawDispatcher, collecting_results
from galaxy_trio.agent.mcp_http import open_http
from galaxy_trio.agent.mcp_log import install_filter
from galaxy_trio.agent.mcp_reading import ToolsPage, error_reason, read_failure, read_result, read_tools
from galaxy_trio.agent.mcp_stdio import ServerProcess, open_process
from galaxy_trio.agent.mcp_streams import SessionEvents, WatchedInput, WatchedOutput
from galaxy_trio.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from mcp.shared._stream_protocols import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage

    from galaxy_trio.agent.mcp_log import ServerLog
    from galaxy_trio.agent.mcp_server import Limits, ListedTool, McpServer
    from galaxy_trio.messages import JSON

logger: Final = logging.getLogger(__name__)

install_filter()

MAX_TOOLS: Final = 1_000
"""Number of tools that are offered of one server."""
_MAX_EMPTY_PAGES: Final = 10
"""Number of pages in a row without a new tool that are read of a list of tools."""


class McpSession:
    """A session with a running MCP server. Made by `open_session`."""

    def __init__(
        self,
        server: McpServer,
        session: ClientSession,
        events: SessionEvents,
        log: ServerLog,
        process: ServerProcess | None,
    ) -> None:
        self._server = server
        self._session = session
        self._events = events
        self._log = log
        self._process = process

    @property
    def problem(self) -> str | None:
        """Why the session was ended from this side; None if it was not."""
        return self._events.problem or (None if self._process is None else self._process.problem)

    async def initialize(self) -> None:
        """Perform the handshake.

        Raises:
            ToolError: The server refused or ended; the text is the reason.
        """
        with _reasons():
            try:
                await self._session.initialize()
            except MCPError as error:
                if error.code not in (METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION):
                    raise
                # The server supports only protocol versions that have no handshake.
                await self._session.discover()

    async def list_tools(self, deadline: float) -> list[ListedTool]:
        """Request the list of tools. Returns the first 1,000.

        What is wrong with some tools, or with the pages after the first, is logged and loses no other tool.

        Args:
            deadline: trio's time after which no further page is waited for.

        Raises:
            ToolError: There is no first page; the text is the reason.
        """
        tools: dict[str, ListedTool] = {}
        cursors: set[str | None] = set()
        cursor: str | None = None
        empty_pages = 0
        problem: str | None = None
        while problem is None and cursor not in cursors:
            cursors.add(cursor)
            try:
                page = await self._page(cursor, deadline)
            except ToolError as error:
                if cursor is None:
                    raise
                problem = f"the list ended early, because a further page failed: {error}"
                break
            before = len(tools)
            for tool in page.tools:
                tools.setdefault(tool.name, tool)
            for each in page.problems:
                self._log.problem_with_tools(each)
            empty_pages = 0 if len(tools) > before else empty_pages + 1
            if len(tools) > MAX_TOOLS:
                problem = f"has more than {MAX_TOOLS} tools, the rest was ignored"
            elif empty_pages == _MAX_EMPTY_PAGES:
                problem = f"the list ended early, because {_MAX_EMPTY_PAGES} pages had no new tool"
            elif page.next_cursor is None:
                break
            elif page.next_cursor in cursors:
                problem = "the list ended early, because its nextCursor repeats"
            cursor = page.next_cursor
        if problem is not None:
            self._log.problem_with_tools(problem)
        return list(tools.values())[:MAX_TOOLS]

    async def _page(self, cursor: str | None, deadline: float) -> ToolsPage:
        params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
        with trio.CancelScope(deadline=deadline), _reasons(), collecting_results() as results:
            try:
                await self._session.list_tools(params=params)
            except MCPError as error:
                if cursor is not None or error.code != METHOD_NOT_FOUND:
                    raise
                # A server may have only prompts or resources.
                return ToolsPage([], ["it offers no tools"], None)
            page = read_tools(results.received[-1])
            return page if self._session.protocol_version not in MODERN_PROTOCOL_VERSIONS else _callable(page)
        raise ToolError(f"it did not reply within {self._server.start_timeout:g} s")

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Any number of tasks may call this concurrently.

        Cancelling notifies the server, which takes up to 5 s if it does not read; the session continues.

        Returns:
            As `galaxy_trio.agent.mcp_reading.read_result`.

        Raises:
            ToolError: The tool failed or made no progress in time, or the server refused or ended before it replied.
        """
        _check_sendable(name, parameters)
        timeout = self._server.call_timeout
        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=cast("dict[str, Any]", parameters)))
        progressed = False
        limit = trio.CancelScope(deadline=trio.current_time() + timeout)

        async def progressed_by(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
            nonlocal progressed
            progressed = True
            limit.deadline = trio.current_time() + timeout
            await trio.lowlevel.checkpoint()

        with _reasons(f"MCP server {self._server.name!r} is not running: "), limit, collecting_results() as results:
            await self._session.send_request(request, EmptyResult, progress_callback=progressed_by)
            return _value_of(name, results.received[-1])
        since = "reported no progress for" if progressed else "took longer than"
        raise ToolError(f"MCP tool {shorten(name)} {since} {timeout:g} s (call_timeout)")

    async def wait_list_changed(self) -> bool:
        """Wait until the server reports a changed list of tools.

        Returns:
            False when the server has ended.
        """
        return await self._events.wait_list_changed()


def _value_of(name: str, result: dict[str, JSON]) -> JSON:
    reason = read_failure(result)
    if reason is not None:
        raise ToolError(reason or f"MCP tool {shorten(name)} failed without a reason")
    if result.get("resultType") == "input_required":
        raise ToolError(f"MCP tool {shorten(name)} asks for input during the call, which a device cannot give")
    return read_result(result)


def _callable(page: ToolsPage) -> ToolsPage:
    """Leave out tools with arguments for HTTP headers that cannot be sent."""
    for tool in list(page.tools):
        reason = find_invalid_x_mcp_header(cast("dict[str, Any]", tool.description.input_schema))
        if reason is not None:
            page.tools.remove(tool)
            page.problems.append(f"ignored tool {shorten(tool.name)}: its x-mcp-header is invalid: {one_line(reason)}")
    return page


@asynccontextmanager
async def open_session(server: McpServer, limits: Limits, log: ServerLog) -> AsyncGenerator[McpSession]:
    """Start a server's process, or connect to its URL, and open a session until the block ends.

    The block continues if they end earlier. An exception raised in the block comes out as the same object. The process ends with the
    block, also when cancelled.

    Raises:
        ConfigError: The process cannot be started, or the token or a header cannot be read or sent.
    """
    events = SessionEvents()
    opened = False
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with open_background(), AsyncExitStack() as stack:
            process: ServerProcess | None = None
            reading: ReadStream[SessionMessage]
            writing: WriteStream[SessionMessage]
            if server.url is None:
                started, writing = await stack.enter_async_context(open_process(server, limits, log))
                process = reading = started
            else:
                reading, writing = await stack.enter_async_context(open_http(server, limits, log, events))

            async def received(message: IncomingMessage) -> None:
                if isinstance(message, ToolListChangedNotification):
                    events.change()
                await trio.lowlevel.checkpoint()

            dispatcher = RawDispatcher(WatchedInput(reading, events), WatchedOutput(writing, events))
            session = await stack.enter_async_context(ClientSession(dispatcher=dispatcher, message_handler=received))
            opened = True
            try:
                yield McpSession(server, session, events, log, process)
            except BaseException as error:
                if contains_cancelled(error):
                    raise
                # Raised below, because the SDK's task groups would wrap it.
                failure = error
    except BaseException as error:
        stray = error
        cancelled, rest = split_cancelled(error)
        if isinstance(rest, Exception):
            if opened:
                logger.warning("the session with MCP server %r failed", server.name, exc_info=rest)
            elif isinstance(rest, ConfigError):
                failure = rest
            else:
                failure = ConfigError(f"MCP server {server.name!r} cannot be started: {_reason(rest)}")
            stray = cancelled
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray


def _reason(error: Exception) -> str:
    """Why a process cannot be started. The program is not shown, and neither is an error that shows it: it may be a misplaced key."""
    if isinstance(error, FileNotFoundError):
        return "there is no such program, or no such working directory; is it installed?"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _check_sendable(name: str, parameters: dict[str, JSON]) -> None:
    """Raise `ToolError` for parameters that cannot be written. They would end the SDK's writer, and all calls with it."""
    request = JSONRPCRequest(
        jsonrpc="2.0", id=0, method="tools/call", params={"name": name, "arguments": parameters, "_meta": {}}
    )
    try:
        request.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError as error:
        raise ToolError(
            "the parameters cannot be sent to an MCP server: they are nested too deep, or contain a lone surrogate"
        ) from error


@contextmanager
def _reasons(ended_prefix: str = "") -> Generator[None]:
    """Map the SDK's exceptions to `ToolError` with the reason."""
    try:
        yield
    except MCPError as error:
        if error.code == CONNECTION_CLOSED and error.message == "Connection closed":
            raise ToolError(f"{ended_prefix}it ended before it replied") from error
        raise ToolError(error_reason(error.message, error.data) or "it refused without a reason") from error
    except ToolError:
        raise
    except Exception as error:  # the SDK raises several kinds
        # What its validation library says is for programmers.
        raise ToolError(
            one_line(str(error)) if isinstance(error, RuntimeError) else "its reply is not valid"
        ) from error
