"""A process of each role is suspended with SIGSTOP for longer than its liveness timeout while a task runs: nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from galaxy_trio._concurrency.suspension import LATE
from tests.end_to_end.support import one_role
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = [
    pytest.mark.simulation,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP"),
]

LIVENESS_TIMEOUT: Final = 4.0
"""The liveness timeout of the process that is suspended, in seconds. The others wait for 180 s."""
INTERVAL: Final = 0.5
"""Seconds between the heartbeats or pings of the process that is suspended. The others send none, so its sockets have nothing to read."""


class _Process:
    """A process of one role."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""

    def send_signal(self, sig: signal.Signals) -> None:
        self._process.send_signal(sig)

    async def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        with trio.fail_after(SECONDS):
            while b"\n" not in self._unread:
                piece = await self._process.stdout.receive_some()
                assert piece, "the process has ended"
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def _open_role(role: str, url: str, folder: Path, suspended: str) -> AsyncGenerator[_Process]:
    """Run a role as a process until the block ends, then kill it."""
    timeout, interval = (LIVENESS_TIMEOUT, INTERVAL) if role == suspended else (180.0, 1000.0)
    program = str(Path(one_role.__file__))
    command = [sys.executable, program, role, url, str(folder), str(timeout), str(interval)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        yield _Process(process)
    finally:
        # SIGKILL also ends a suspended process.
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await process.wait()


@pytest.mark.parametrize("suspended", ["client", "server", "agent"])
async def test_task_and_all_connections_survive_a_suspension_for_longer_than_the_liveness_timeout(
    suspended: str, tmp_path: Path
) -> None:
    async with _open_role("server", "", tmp_path, suspended) as server:
        url = await server.line()
        async with _open_role("agent", url, tmp_path, suspended) as agent:
            assert await agent.line() == "registered"
            async with _open_role("client", url, tmp_path, suspended) as client:
                assert await client.line() == "connected"
                await until((tmp_path / "running").exists)
                process = {"client": client, "server": server, "agent": agent}[suspended]
                process.send_signal(signal.SIGSTOP)
                await trio.sleep(LIVENESS_TIMEOUT + 2 * LATE)
                process.send_signal(signal.SIGCONT)
                # A connection that is given up is given up in the first steps after that.
                await trio.sleep(1)
                (tmp_path / "may end").touch()
                registrations, open_connections = json.loads(await client.line())
                assert (registrations, open_connections) == (one_role.CONNECTIONS, one_role.CONNECTIONS)
