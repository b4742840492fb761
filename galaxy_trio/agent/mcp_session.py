"""One life of an MCP server: its process and the session with it, by the official SDK. Its errors end here.

Imports the SDK, which is slow and an extra: only `galaxy_trio.agent.mcp_supervisor` imports this, when servers are opened.
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
"""Tools of one server that are offered."""
_MAX_TEXT: Final = 500
"""Characters of an error, or of a line in the log, that are kept."""


class _Ending:
    """Whether a server has ended, and whether its tools have changed."""

    def __init__(self) -> None:
        self._ended = False
        self._changed = False
        self._stirred = trio.Event()

    def end(self) -> None:
        self._ended = True
        self._stirred.set()

    def change(self) -> None:
        self._changed = True
        self._stirred.set()

    async def wait_changed(self) -> bool:
        while not self._ended:
            if self._changed:
                self._changed = False
                return True
            self._stirred = trio.Event()
            await self._stirred.wait()
        return False


class _WatchedStream(ObjectReceiveStream["SessionMessage | Exception"]):
    """What the SDK reads from, with the one thing added that its session does not tell: when it has come to the end."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception], ending: _Ending) -> None:
        self._stream = stream
        self._ending = ending

    async def receive(self) -> SessionMessage | Exception:
        return await self._stream.receive()

    async def aclose(self) -> None:
        self._ending.end()
        await self._stream.aclose()


class McpSession:
    """A session with an MCP server whose process runs. Made by `open_session`."""

    def __init__(self, name: str, session: ClientSession, ending: _Ending) -> None:
        self._name = name
        self._session = session
        self._ending = ending

    async def initialize(self) -> None:
        """Shake hands.

        Raises:
            ToolError: The server refused or ended; the text is why.
        """
        with _reasons():
            try:
                await self._session.initialize()
            except MCPError as error:
                if error.code not in (METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION):
                    raise
                # It speaks only versions of the protocol that have no handshake.
                await self._session.discover()

    async def list_tools(self) -> list[ListedTool]:
        """Ask for the server's tools, of which it may have 1,000: more are left out, as are names above 1,000 characters.

        Raises:
            ToolError: The server refused or ended; the text is why.
        """
        tools: dict[str, ListedTool] = {}
        page: PaginatedRequestParams | None = None
        while True:
            with _reasons():
                listed = await self._session.list_tools(params=page)
            for tool in listed.tools:
                if not 0 < len(tool.name) <= MAX_ID:
                    logger.warning(
                        "MCP server %r: a tool is left out, its name has %d characters", self._name, len(tool.name)
                    )
                    continue
                if len(tools) == MAX_TOOLS:
                    logger.warning("MCP server %r has more than %d tools: the rest is left out", self._name, MAX_TOOLS)
                    return list(tools.values())
                read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
                tools[tool.name] = ListedTool(tool.name, read_only)
            if listed.next_cursor is None:
                return list(tools.values())
            page = PaginatedRequestParams(cursor=listed.next_cursor)

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:
        """Call a tool. Any number of tasks may call at once.

        Cancelling tells the server, which takes up to 5 s if it does not read; the session goes on.

        Returns:
            The result's structured content; without that, what its one block holds, or a list of what each holds: a text as
            a str, anything else as MCP's own JSON.

        Raises:
            ToolError: The tool failed, the server refused, or it ended before it had answered.
        """
        _check_sendable(name, parameters)
        with _reasons(f"MCP server {self._name!r} is not running: "):
            result = await self._session.call_tool(name, parameters)
        if result.is_error:
            raise ToolError(_one_line(_text_of(result)) or f"MCP tool {name!r} failed and did not say why")
        if result.structured_content is not None:
            return cast("JSON", result.structured_content)
        values = [_value(block) for block in result.content]
        if len(values) > 1:
            return values
        return values[0] if values else None

    async def wait_list_changed(self) -> bool:
        """Wait until the server says that its tools have changed.

        Returns:
            False when the server has ended.
        """
        return await self._ending.wait_changed()


@asynccontextmanager
async def open_session(server: McpServer) -> AsyncGenerator[McpSession]:
    """Start a server's process and a session with it, for the length of the block, which goes on if they end.

    What the block raises comes out as it is. The process ends with the block, under cancellation too.

    Raises:
        ConfigError: The process cannot be started.
    """
    program, *arguments = server.command
    ending = _Ending()
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
                    # Bytes that are no UTF-8 cost the message that they are in, not the session.
                    encoding_error_handler="replace",
                )
                reading, writing = await stack.enter_async_context(stdio_client(parameters, errlog))

            async def received(message: IncomingMessage) -> None:
                if isinstance(message, ToolListChangedNotification):
                    ending.change()

            session = await stack.enter_async_context(
                ClientSession(_WatchedStream(reading, ending), writing, message_handler=received)
            )
            opened = True
            try:
                yield McpSession(server.name, session, ending)
            except BaseException as error:
                if contains_cancelled(error):
                    raise
                # Raised below: the SDK's task groups would wrap it.
                failure = error
    except BaseException as error:
        stray = error
        cancelled, rest = split_cancelled(error)
        if isinstance(rest, Exception):
            if not opened:
                missing = isinstance(rest, FileNotFoundError)
                why = "there is no such program; is it installed?" if missing else rest
                raise ConfigError(f"MCP server {server.name!r} cannot be started with {program!r}: {why}") from rest
            logger.warning("the session with MCP server %r broke down", server.name, exc_info=rest)
            stray = cancelled
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray


@contextmanager
def _logged_lines(nursery: trio.Nursery, name: str) -> Generator[TextIO]:
    """A file for a process to write to, whose lines are logged."""
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
            line += first[: _MAX_TEXT - len(line)]
            for following in more:
                _log_line(name, line)
                line = following[:_MAX_TEXT]
    _log_line(name, line)


def _log_line(name: str, line: bytes) -> None:
    if line.strip():
        logger.debug("MCP server %r: %s", name, line.decode(errors="replace").rstrip())


def _check_sendable(name: str, parameters: dict[str, JSON]) -> None:
    """Raise `ToolError` for what cannot be written: the SDK's writer would break down over it, and all calls with it."""
    request = JSONRPCRequest(
        jsonrpc="2.0", id=0, method="tools/call", params={"name": name, "arguments": parameters, "_meta": {}}
    )
    try:
        request.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError as error:
        raise ToolError(f"the parameters cannot be sent to an MCP server: {_one_line(str(error))}") from error


@contextmanager
def _reasons(ended_prefix: str = "") -> Generator[None]:
    """Turn whatever the SDK raises into `ToolError` with the reason."""
    try:
        yield
    except MCPError as error:
        if error.code == CONNECTION_CLOSED:
            raise ToolError(f"{ended_prefix}it ended before it had answered") from error
        raise ToolError(_one_line(error.message)) from error
    except Exception as error:  # answers that are not what the protocol says raise several kinds
        raise ToolError(_one_line(str(error)) or type(error).__name__) from error


def _one_line(text: str) -> str:
    line = " ".join(text[: 4 * _MAX_TEXT].split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"


def _text_of(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _value(block: ContentBlock) -> JSON:
    if isinstance(block, TextContent):
        return block.text
    return cast("JSON", block.model_dump(mode="json", by_alias=True, exclude_none=True))
