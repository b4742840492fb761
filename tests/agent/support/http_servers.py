"""MCP servers over HTTP for tests: the real one as a process, and one with given replies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import trio

from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable

_PROGRAM = Path(__file__).parent / "http_mcp_server.py"


class HttpServer:
    """A real server's process.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, process: trio.Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def kill(self) -> None:
        """End the process immediately."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def open_http_server(*options: str, port: int = 0, token: str | None = None) -> AsyncGenerator[HttpServer]:
    """Run the real server until the block ends."""
    env = {**os.environ, **({} if token is None else {"TOKEN": token})}
    command = [sys.executable, str(_PROGRAM), str(port), *options]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, env=env, check=False))
        line = b""
        with trio.fail_after(SECONDS):
            while not line.endswith(b"\n"):
                data = await process.stdout.receive_some()
                assert data, "the server did not start"
                line += bytes(data)
        yield HttpServer(process, int(line))
        nursery.cancel_scope.cancel()


Answer = tuple[int, dict[str, str], bytes]
"""A reply: its status, headers and body. The status 0 stands for none: the connection is closed. The status -1: it stays open
until the client closes it; then a reply to the method CLOSED is made, and not sent."""


async def _converse(stream: trio.abc.Stream, answer: Callable[[str, bytes], Answer]) -> None:
    connection = h11.Connection(h11.SERVER)
    method, body = "", b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            method = event.method.decode()
        elif isinstance(event, h11.Data):
            body += event.data
    if not method:
        return
    status, headers, content = answer(method, body)
    if status == 0:
        return
    if status < 0:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
        answer("CLOSED", body)
        return
    sent = [*headers.items(), ("connection", "close")]
    if "transfer-encoding" not in headers:
        sent.append(("content-length", str(len(content))))
    data = connection.send(h11.Response(status_code=status, headers=sent)) or b""
    for part in content.split(b"|"):
        data += connection.send(h11.Data(part)) or b""
    await stream.send_all(data)


@asynccontextmanager
async def open_odd_http_server(
    answer: Callable[[str, bytes], Answer], ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """Serve given replies, one for each connection. Yields the URL.

    Args:
        answer: Makes the reply from the request's method and body.
        ssl_context: For https.
    """

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if ssl_context is not None:
            stream = trio.SSLStream(plain, ssl_context, server_side=True, https_compatible=True)
        # A client that is closed may end the connection within its request.
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
            await _converse(stream, answer)
        await plain.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        scheme = "http" if ssl_context is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}/mcp?key=s3cret"
        nursery.cancel_scope.cancel()


HANDSHAKE: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "serverInfo": {"name": "odd", "version": "1"},
}
TOOLS: dict[str, object] = {"tools": [{"name": "answer", "inputSchema": {"type": "object"}}]}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


def replies(method: str, body: bytes, called: Answer = (200, JSON, b"{}")) -> Answer:
    """The replies of a server whose calls are answered with `called`."""
    if method != "POST":
        return 405, {}, b""
    message = json.loads(body)
    match message["method"]:
        case "initialize":
            result = HANDSHAKE
        case "tools/list":
            result = TOOLS
        case "tools/call":
            status, headers, content = called
            return status, headers, content.replace(b"ID", json.dumps(message["id"]).encode())
        case _:
            return 202, {}, b""
    text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
    return 200, {**JSON, "mcp-session-id": "1"}, text.encode()
