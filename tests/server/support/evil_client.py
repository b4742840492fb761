"""A malicious client next to a device and a constellation."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from galaxy_trio.messages import Command, ToolType
from tests.server.support.clients import DEVICE, Clients, register_constellation
from tests.server.support.raw_client import RawClient, open_raw_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.server import ServerTask


LOOK = Command("look", ToolType.DATA_COLLECTION, call_id="c")
SECRET = "what only the two may know"
EVIL = "evil"


async def look(task: ServerTask) -> object:
    [seen] = await task.execute([LOOK])
    return seen.result


@asynccontextmanager
async def open_evil(clients: Clients, target: str | None = DEVICE) -> AsyncGenerator[RawClient]:
    async with open_raw_client(clients.server.connect()) as evil:
        await register_constellation(evil, EVIL, target)
        yield evil


def empty_fragments(count: int) -> bytes:
    """A text message that begins with so many empty fragments, each with a mask."""
    return b"\x01\x80mask" + b"\x00\x80mask" * (count - 1)
