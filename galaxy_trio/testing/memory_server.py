"""A server whose connections are in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.server.access import AccessPolicy
from galaxy_trio.server.server import Server, ServerLimits, echo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from galaxy_trio.messages import JSON
    from galaxy_trio.server.sessions import SessionFunction

_URL: Final = "ws://server.test/ws"


class MemoryServer(Server):
    """A `Server` without sockets. Made by `open_memory_server`. Give its `url` and the stream from `connect` to `open_connection`."""

    def connect(self) -> trio.abc.Stream:
        """Connect to the server and return the client's end."""
        client_end, server_end = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.serve_stream, server_end)
        return client_end

    def on_registration(self, call: Callable[[], object]) -> None:
        """Call a function after each registration, in the same step, in place of the previous function. It must not block."""
        self._registry.on_registration = call


@asynccontextmanager
async def open_memory_server(
    *,
    session: SessionFunction = echo,
    token: str | Iterable[str] | None = None,
    allowed_origins: str | Iterable[str] = (),
    device_config: Mapping[str, Mapping[str, JSON]] | None = None,
    limits: ServerLimits | None = None,
) -> AsyncGenerator[MemoryServer]:
    """Run a server in memory until the block ends. The arguments are those of `open_server`."""
    access = AccessPolicy(token, allowed_origins=allowed_origins)
    async with open_background() as nursery:
        server = MemoryServer(_URL, nursery, session, access, limits or ServerLimits(), device_config)
        yield server
        await server.stop()
