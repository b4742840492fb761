"""A proxy in front of a PostgreSQL server that cuts connections, also while a COMMIT is on its way or its answer is."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from random import Random

_NAME: Final = ".s.PGSQL.5432"
_COMMIT: Final = b"COMMIT\0"


class CuttingProxy:
    """Forwards connections. Made by `open_cutting_proxy`.

    Attributes:
        directory: The host to connect to.
        cuts: How many connections were cut.
    """

    def __init__(self, directory: Path, target: Path, random: Random) -> None:
        self.directory = directory
        self.cuts = 0
        self._target = target
        self._random = random
        self._commits_to_cut = 0
        self._scopes: set[trio.CancelScope] = set()

    def cut_all(self) -> None:
        """Cut all connections now."""
        self.cuts += len(self._scopes)
        for scope in self._scopes:
            scope.cancel()

    def cut_commits(self, number: int) -> None:
        """Cut the connections of the next commits: half of them before the server gets the commit, half before its answer."""
        self._commits_to_cut += number

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with client, await trio.open_unix_socket(str(self._target / _NAME)) as server:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._forward, client, server, scope, True)
                        nursery.start_soon(self._forward, server, client, scope, False)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._scopes.discard(scope)

    async def _forward(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope, is_request: bool
    ) -> None:
        while data := await source.receive_some():
            is_cut = is_request and self._commits_to_cut > 0 and _COMMIT in data
            if is_cut:
                self._commits_to_cut -= 1
                self.cuts += 1
                if self._random.random() < 0.5:
                    scope.cancel()
                    return
            await sink.send_all(data)
            if is_cut:
                scope.cancel()
                return
        scope.cancel()


@asynccontextmanager
async def open_cutting_proxy(target: Path, random: Random) -> AsyncGenerator[CuttingProxy]:
    """Forward connections to the server in a directory inside the block."""
    # The name of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="galaxy-cut-"))
    proxy = CuttingProxy(directory, target, random)
    try:
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listening.bind(str(directory / _NAME))
        listening.listen(100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy.serve, [trio.SocketListener(listening)])
            yield proxy
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory)
