"""The daemon's HTTP server on loopback, and a client that can send any bytes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import h11
import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from galaxy_trio.daemon.web.security import Security
from galaxy_trio.daemon.web.serving import serve_http
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

TOKEN = "t0ken-of-the-daemon"


async def echo(request: Request) -> Response:
    return JSONResponse({"method": request.method, "body": (await request.body()).decode()})


async def page(_request: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response("<p>", headers={"Content-Security-Policy": "default-src 'self'"})


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["GET", "POST", "DELETE"]),
        Route("/graphs", echo, methods=["POST"]),
        Route("/graphs/echo", echo, methods=["POST", "PATCH"]),
        Route("/open", echo),
        Route("/", page),
    ]
)


@attrs.define
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@attrs.define
class Http:
    """A client of the server. Made by `open_http`."""

    port: int
    tokens: list[str]
    hosts: list[str]

    async def raw(self, *pieces: bytes) -> bytes:
        """Send bytes, and read until the server closes the connection."""
        with trio.fail_after(SECONDS):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                received = b""
                try:
                    for piece in pieces:
                        await stream.send_all(piece)
                    async for more in stream:
                        received += more
                except trio.BrokenResourceError:
                    pass
                return received

    async def ask(
        self,
        path: str = "/echo",
        *headers: tuple[str, str],
        method: str = "GET",
        host: str | None = "localhost",
        token: str | None = TOKEN,
        body: bytes = b"",
    ) -> Answer:
        """Send one request, without any corrections."""
        lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
        if host is not None:
            lines.append(f"Host: {host}")
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return parse(await self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body))


def parse(received: bytes) -> Answer:
    """Parse a response."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(received)
    http.receive_data(b"")
    response = http.next_event()
    while isinstance(response, h11.InformationalResponse):
        response = http.next_event()
    assert isinstance(response, h11.Response), received
    body = bytearray()
    while isinstance(event := http.next_event(), h11.Data):
        body += event.data
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Answer(response.status_code, headers, bytes(body))


@asynccontextmanager
async def open_http(
    app: ASGIApp = APP,
    *,
    secure: bool = True,
    tokens: Sequence[str] = (TOKEN,),
    hosts: Sequence[str] = (),
    **limits: Any,
) -> AsyncGenerator[Http]:
    """Serve an application on loopback inside the block."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    http = Http(listener.socket.getsockname()[1], list(tokens), list(hosts))
    if secure:
        app = Security(app, tokens=lambda: http.tokens, hosts=lambda: http.hosts, open_paths=["/open", "/"])
    async with serve_http(app, [listener], **limits):
        yield http
