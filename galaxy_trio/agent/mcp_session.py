"""A session with an MCP server process, on the official SDK. Maps the SDK's errors to this package's.

The SDK is an extra and slow to import: only `galaxy_trio.agent.mcp_supervisor` imports this module, when servers are opened.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TextIO, cast

import trio
from anyio.abc import ObjectReceiveStream
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolResult,
    ContentBlock,
    JSONRPCRequest,
    PaginatedRequestParams,
    TextContent,
    ToolListChangedNotification,
)

from galaxy_trio._arguments import MAX_ID
from galaxy_trio._concurrency.background import contains_cancelled, open_background, raise_outcome, split_cancelled
from galaxy_trio.agent.command_runner import one_line
from galaxy_trio.agent.mcp_server import ListedTool
from galaxy_trio.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from mcp.shared._stream_protocols import ReadStream
    from mcp.shared.message import SessionMessage

    from galaxy_trio.agent.mcp_server import McpServer
    from galaxy_trio.messages import JSON

logger: Final = logging.getLogger(__name__)

MAX_TOOLS: Final = 1_000
"""Number of tools that are offered of one server."""
_MAX_LINE: Final = 500
"""Maximum number of bytes of a logged line."""


class _ListChanges:
    """Notifies a waiter of a changed list of tools and of the server's end."""

    def __init__(self) -> None:
        self._ended = False
        self._changed = False
        self._waiters = trio.lowlevel.ParkingLot()

    def end(self) -> None:
        self._ended = True
        self._waiters.unpark_all()

    def change(self) -> None:
        self._changed = True
        self._waiters.unpark_all()

    async def wait(self) -> bool:
        while not self._ended:
            if self._changed:
                self._changed = False
                return True
            await self._waiters.park()
        return False


class _WatchedStream(ObjectReceiveStream["SessionMessage | Exception"]):
    """The SDK's input stream. Reports its end, which the SDK's session does not."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], changes: _ListChanges) -> None:
        self._stream = stream
        self._changes = changes

    async def receive(self) -> SessionMessage | Exception:
        return await self._stream.receive()

    async def aclose(self) -> None:
        self._changes.end()
        await self._stream.aclose()


class McpSession:
    """A session with a running MCP server process. Made by `open_session`."""

    def __init__(self, name: str, session: ClientSession, changes: _ListChanges) -> None:
        self._name = name
        self._session = session
        self._changes = changes

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

    async def list_tools(self) -> list[ListedTool]:
        """Request the list of tools. Returns the first 1,000, without names of more than 1,000 characters.

        Raises:
            ToolError: The server refused or ended; the text is the reason.
        """
        tools: dict[str, ListedTool] = {}
        page: PaginatedRequestParams | None = None
        while True:
            with _reasons():
                listed = await self._session.list_tools(params=page)
            for tool in listed.tools:
                if not 0 < len(tool.name) <= MAX_ID:
                    logger.warning(
                        "MCP server %r: ignored a tool whose name has %d characters", self._name, len(tool.name)
                    )
                    continue
                if len(tools) == MAX_TOOLS:
                    logger.warning("MCP server %r has more than %d tools: ignored the rest", self._name, MAX_TOOLS)
                    return list(tools.values())
                read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
                tools[tool.name] = ListedTool(tool.name, read_only)
            if listed.next_cursor is None:
                return list(tools.values())
            page = PaginatedRequestParams(cursor=listed.next_cursor)

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Any number of tasks may call this concurrently.

        Cancelling notifies the server, which takes up to 5 s if it does not read; the session continues.

        Returns:
            The result's structured content. Without it, the value of its one content block, or the list of all blocks' values:
            text as a str, anything else as MCP's own JSON.

        Raises:
            ToolError: The tool failed, or the server refused or ended before it replied.
        """
        _check_sendable(name, parameters)
        with _reasons(f"MCP server {self._name!r} is not running: "):
            result = await self._session.call_tool(name, parameters)
        if result.is_error:
            raise ToolError(one_line(_text_of(result)) or f"MCP tool {name!r} failed without a reason")
        if result.structured_content is not None:
            return cast("JSON", result.structured_content)
        values = [_value(block) for block in result.content]
        if len(values) > 1:
            return values
        return values[0] if values else None

    async def wait_list_changed(self) -> bool:
        """Wait until the server reports a changed list of tools.

        Returns:
            False when the server has ended.
        """
        return await self._changes.wait()


@asynccontextmanager
async def open_session(server: McpServer) -> AsyncGenerator[McpSession]:
    """Start a server's process and open a session with it until the block ends. The block continues if they end earlier.

    An exception raised in the block comes out as the same object. The process ends with the block, also when cancelled.

    Raises:
        ConfigError: The process cannot be started.
    """
    program, *arguments = server.command
    changes = _ListChanges()
    opened = False
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with open_background() as nursery, AsyncExitStack() as stack:
            with _logged_lines(nursery, server.name) as errlog:
                parameters = StdioServerParameters(
                    command=program,
                    args=arguments,
                    env=None if server.env is None else dict(server.env),
                    cwd=None if server.cwd is None else os.fspath(server.cwd),
                    # Invalid UTF-8 breaks one message, not the session.
                    encoding_error_handler="replace",
                )
                reading, writing = await stack.enter_async_context(stdio_client(parameters, errlog))

            async def received(message: IncomingMessage) -> None:
                if isinstance(message, ToolListChangedNotification):
                    changes.change()

            session = await stack.enter_async_context(
                ClientSession(_WatchedStream(reading, changes), writing, message_handler=received)
            )
            opened = True
            try:
                yield McpSession(server.name, session, changes)
            except BaseException as error:
                if contains_cancelled(error):
                    raise
                # Raised below, because the SDK's task groups would wrap it.
                failure = error
    except BaseException as error:
        stray = error
        cancelled, rest = split_cancelled(error)
        if isinstance(rest, Exception):
            if not opened:
                missing = isinstance(rest, FileNotFoundError)
                why = "there is no such program; is it installed?" if missing else rest
                raise ConfigError(f"MCP server {server.name!r} cannot be started with {program!r}: {why}") from rest
            logger.warning("the session with MCP server %r failed", server.name, exc_info=rest)
            stray = cancelled
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray


@contextmanager
def _logged_lines(nursery: trio.Nursery, name: str) -> Generator[TextIO]:
    """A file whose lines are logged, for a process's stderr."""
    if sys.platform == "win32":  # pragma: no cover  # trio cannot read such a pipe there
        with open(os.devnull, "w") as nowhere:
            yield nowhere
    else:
        reading, writing = os.pipe()
        with open(writing, "w", encoding="utf-8") as file:
            nursery.start_soon(_log_lines, trio.lowlevel.FdStream(reading), name)
            yield file


async def _log_lines(stream: trio.abc.ReceiveStream, name: str) -> None:
    line = b""
    async with stream:
        async for data in stream:
            first, *more = bytes(data).split(b"\n")
            line += first[: _MAX_LINE - len(line)]
            for following in more:
                _log_line(name, line)
                line = following[:_MAX_LINE]
    _log_line(name, line)


def _log_line(name: str, line: bytes) -> None:
    if line.strip():
        logger.debug("MCP server %r: %s", name, line.decode(errors="replace").rstrip())


def _check_sendable(name: str, parameters: dict[str, JSON]) -> None:
    """Raise `ToolError` for parameters that cannot be written. They would end the SDK's writer, and all calls with it."""
    request = JSONRPCRequest(
        jsonrpc="2.0", id=0, method="tools/call", params={"name": name, "arguments": parameters, "_meta": {}}
    )
    try:
        request.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError as error:
        raise ToolError(f"the parameters cannot be sent to an MCP server: {one_line(str(error))}") from error


@contextmanager
def _reasons(ended_prefix: str = "") -> Generator[None]:
    """Map the SDK's exceptions to `ToolError` with the reason."""
    try:
        yield
    except MCPError as error:
        if error.code == CONNECTION_CLOSED:
            raise ToolError(f"{ended_prefix}it ended before it replied") from error
        raise ToolError(one_line(error.message)) from error
    except Exception as error:  # replies that violate the protocol raise several kinds
        raise ToolError(one_line(str(error)) or type(error).__name__) from error


def _text_of(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _value(block: ContentBlock) -> JSON:
    if isinstance(block, TextContent):
        return block.text
    return cast("JSON", block.model_dump(mode="json", by_alias=True, exclude_none=True))
