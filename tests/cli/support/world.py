"""A server with a device for the tests of the command line: ``python -m tests.cli.support.world`` runs it as a process."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click
import trio

from galaxy_trio import (
    DeviceInfo,
    TaskFailed,
)
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import Server, ServerTask, open_server
from tests.cli.support.command_line import (
    DEVICE,
    TOKEN,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trustme

    from galaxy_trio.server import SessionFunction


INFO = DeviceInfo(
    DEVICE,
    "linux",
    cpu_count=4,
    supported_features=["cli", "gui"],
    tags=["[bold]lab[/bold]", "\x1b[31mred"],
    custom_metadata={"room": "Köln\x9b"},
    extra={"new": True},
)


EVIL = "\x1b]0;title\x07 [red]rot[/red] 😀\r\nback\rspace\u202e end"


async def session(task: ServerTask) -> object:
    """Return or raise what the request names."""
    match task.request:
        case "say":
            return "one\ntwo"
        case "evil":
            return EVIL
        case "fail":
            raise RuntimeError("it broke\non two \x1b[31mlines [bold]")
        case "explain":
            raise TaskFailed("", result={"why": "no screen"})
        case "wait":
            await trio.sleep_forever()
        case "complain":
            raise RuntimeError("x" * 10_000)
        case _:
            pass
    return {"echo": task.request, "ö": [1]}


@asynccontextmanager
async def open_world(session: SessionFunction = session, authority: trustme.CA | None = None) -> AsyncGenerator[Server]:
    """Open a server with a device; with TLS if there is an authority."""
    server_side = client_side = None
    if authority is not None:
        server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(server_side)  # pyright: ignore[reportUnknownMemberType]
        client_side = ssl.create_default_context()
        authority.configure_trust(client_side)  # pyright: ignore[reportUnknownMemberType]
    async with (
        open_server(session=session, token=TOKEN, ssl_context=server_side) as server,
        open_device_connection(server.url, DEVICE, system_info=INFO, token=TOKEN, ssl_context=client_side),
    ):
        yield server


async def serve() -> None:
    """Run the server of the tests that run the command line in their own process. Prints its URL, and runs until it is killed."""
    async with open_world() as server:
        click.echo(server.url)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(serve)
