"""A real MCP server over streamable HTTP, on the official SDK. A program for tests: ``python http_mcp_server.py PORT [json]``.

It prints its port when it listens. With ``TOKEN`` in its environment, it refuses requests without this token.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("over HTTP", log_level="CRITICAL")
headers: dict[str, str] = {}


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def process_id() -> int:
    return os.getpid()


@server.tool()
def header(name: str) -> str:
    """The value of a header of the last request."""
    return headers.get(name, "none")


@server.tool()
async def wait(seconds: float, steps: int, context: Context) -> str:
    """Wait, reporting progress at each step."""
    for step in range(steps):
        await anyio.sleep(seconds / steps)
        await context.report_progress(step, steps)
    return "waited"


@server.tool()
def big(size: int) -> str:
    return "x" * size


@server.tool()
async def learn(tool: str, context: Context) -> str:
    """Add a tool and notify the client."""
    server.add_tool(add, name=tool)
    await context.session.send_tool_list_changed()
    return "learnt"


def checking_token(app: ASGIApp, token: str | None) -> ASGIApp:
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers.clear()
            headers.update({name.decode(): value.decode() for name, value in scope["headers"]})
            if token is not None and headers.get("authorization") != f"Bearer {token}":
                await PlainTextResponse("no", 401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return checked


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    app = server.streamable_http_app(json_response="json" in sys.argv)
    config = uvicorn.Config(
        checking_token(app, os.environ.get("TOKEN")), log_level="critical", timeout_graceful_shutdown=1
    )
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
