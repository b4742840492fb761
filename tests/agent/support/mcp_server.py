"""A real MCP server over stdio, on the official SDK. A program for tests."""

from __future__ import annotations

import os
import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel

server = MCPServer("for tests", log_level="CRITICAL")
cancelled: list[str] = []
waiting: list[str] = []


class Point(BaseModel):
    """The result of `point`."""

    x: int
    y: int


@server.tool(structured_output=False)
def add(a: int, b: int) -> str:
    return str(a + b)


@server.tool(annotations=ToolAnnotations(read_only_hint=True), structured_output=False)
def process_id() -> str:
    return str(os.getpid())


@server.tool(structured_output=False)
async def wait(label: str) -> str:
    """Wait until cancelled and record the cancelled calls."""
    waiting.append(label)
    try:
        await anyio.sleep_forever()
    finally:
        waiting.remove(label)
        cancelled.append(label)
    return "never"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def who_waits() -> list[str]:
    return sorted(waiting)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def who_was_cancelled() -> list[str]:
    return cancelled


@server.tool(structured_output=False)
def fail() -> str:
    raise ToolError("the tool\ncannot " + "x" * 1_000)


@server.tool(structured_output=False)
def crash() -> str:
    sys.stderr.write("x" * 10_000 + "\n\nabout to crash\nunfinished")
    sys.stderr.flush()
    os._exit(3)


@server.tool()
def point(x: int, y: int) -> Point:
    return Point(x=x, y=y)


@server.tool(structured_output=False)
def picture() -> ImageContent:
    return ImageContent(type="image", data="AAEC", mime_type="image/png")


@server.tool(structured_output=False)
def picture_and_text() -> list[ImageContent | TextContent]:
    return [picture(), TextContent(type="text", text="a picture")]


@server.tool(structured_output=False)
async def learn(tool: str, context: Context) -> str:
    """Add a tool and notify the client."""
    server.add_tool(add, name=tool)
    await context.session.send_tool_list_changed()
    return "learnt"


if __name__ == "__main__":
    server.run()
