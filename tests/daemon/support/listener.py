"""Reads the daemon's events as a browser does."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.daemon.support.daemon import RunningDaemon


class Listener:
    """Reads events as a browser does. Made by `listen`."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id: str | None = None

    async def next(self) -> tuple[str, Any]:
        """The kind and the data of the next event or comment."""
        kind, data = "message", None
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
            elif line.startswith(":"):
                kind = "comment"
            elif not line:
                return kind, data
        raise EOFError

    async def until(self, kind: str, **members: object) -> Any:
        """The data of the next event that has these members."""
        while True:
            found, data = await self.next()
            if found == kind and all(data.get(name) == value for name, value in members.items()):
                return data


@asynccontextmanager
async def listen(daemon: RunningDaemon, last_id: str | None = None) -> AsyncGenerator[Listener]:
    """Listen on a new connection inside the block."""
    headers = [] if last_id is None else [("Last-Event-ID", last_id)]
    async with listen_on(await trio.open_unix_socket(daemon.directory / "s"), "localhost", *headers) as listener:
        yield listener


@asynccontextmanager
async def listen_on(stream: trio.abc.Stream, host: str, *headers: tuple[str, str]) -> AsyncGenerator[Listener]:
    """Listen on a connection to this host inside the block, and close it."""
    async with stream:
        http = h11.Connection(h11.CLIENT)
        await stream.send_all(
            http.send(h11.Request(method="GET", target="/events", headers=[("Host", host), *headers]))
        )
        response = await _next_event(stream, http)
        assert isinstance(response, h11.Response)
        assert (b"content-type", b"text/event-stream; charset=utf-8") in response.headers
        async with aclosing(_lines(stream, http)) as lines:
            listener = Listener(lines)
            assert await listener.next() == ("comment", None)
            yield listener


async def _next_event(stream: trio.abc.Stream, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some()))
    return event


async def _lines(stream: trio.abc.Stream, http: h11.Connection) -> AsyncGenerator[str]:
    rest = b""
    while isinstance(event := await _next_event(stream, http), h11.Data):
        *lines, rest = (rest + event.data).split(b"\n")
        for line in lines:
            yield line.decode()
    assert isinstance(event, h11.EndOfMessage)
