"""Reads the body of an HTTP reply within a limit: as a whole, or as a stream of server-sent events."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import httpx2
import trio

from galaxy_trio.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio._concurrency.memory_budget import MemoryShare

_CLOSE_TIMEOUT: Final = 2.0
_END_OF_EVENT: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_END_OF_LINE: Final = re.compile(r"\r\n|\n|\r")


@asynccontextmanager
async def _parts(response: httpx2.Response) -> AsyncGenerator[Callable[[], Awaitable[bytes | None]]]:
    """Yield a function that returns the next part of the body, or None at the end."""
    parts = response.aiter_raw()

    async def next_part() -> bytes | None:
        return await anext(parts, None)

    try:
        yield next_part
    finally:
        # Generators within generators: they all end when the innermost finds its connection closed.
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True), suppress(httpx2.HTTPError, httpx2.StreamError):
            await response.aclose()
            while await anext(parts, None) is not None:
                pass


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise ToolError(f"its reply has more than {limit} bytes")


async def read_body(response: httpx2.Response, limit: int, share: MemoryShare) -> str:
    """Read the whole body.

    Raises:
        ToolError: It has more bytes than the limit.
    """
    body = bytearray()
    try:
        async with _parts(response) as next_part:
            while (part := await next_part()) is not None:
                body += part
                share.add(len(part))
                _check(len(body), limit)
    finally:
        share.add(-len(body))
    return body.decode("utf-8-sig", errors="replace")


@asynccontextmanager
async def open_events(
    response: httpx2.Response, limit: int, share: MemoryShare
) -> AsyncGenerator[Callable[[], Awaitable[str | None]]]:
    """Yield a function that returns the data of the next event with data, or None at the end.

    It raises `ToolError` if an event has more bytes than the limit.
    """
    buffer = bytearray()
    searched = 0

    async with _parts(response) as next_part:

        async def next_event() -> str | None:
            nonlocal searched
            while True:
                while (found := _END_OF_EVENT.search(buffer, searched)) is None:
                    # An end may have begun.
                    searched = max(0, len(buffer) - 3)
                    _check(len(buffer), limit)
                    part = await next_part()
                    if part is None:
                        return None
                    buffer.extend(part)
                    share.add(len(part))
                event = bytes(memoryview(buffer)[: found.start()])
                del buffer[: found.end()]
                share.add(-found.end())
                searched = 0
                if data := _data_of(event.decode("utf-8-sig", errors="replace")):
                    return data

        try:
            yield next_event
        finally:
            share.add(-len(buffer))


def _data_of(event: str) -> str:
    """The data of an event of a message; empty for any other event."""
    data: list[str] = []
    for line in _END_OF_LINE.split(event):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event" and value != "message":
            return ""
    return "\n".join(data)
