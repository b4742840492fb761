"""A daemon as a process that tests can kill, and a count of the tasks that an AIP server ran for it."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import httpx2
import trio

from galaxy_trio.messages import Command, ToolType
from tests.cli.support.command_line import environment
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.server import ServerTask


class Ran:
    """Counts the tasks that the server ran."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.enough = trio.Event()
        self.wanted = 1
        self.released = trio.Event()
        self.released.set()

    async def __call__(self, task: ServerTask) -> object:
        self.begun[task.request] += 1
        if self.begun.total() >= self.wanted:
            self.enough.set()
        await self.released.wait()
        [result] = await task.execute([Command("work", ToolType.ACTION, {"name": task.request})])
        self.ended[task.request] += 1
        return result.result


class DaemonProcess:
    """A daemon that can be killed and started again with the same files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start the daemon, and wait until it listens."""
        command = [sys.executable, "-m", "galaxy_trio", "daemon", "--config", str(self._directory / "galaxy.toml")]
        with (self._directory / "log").open("a") as log:
            process = self._process = await trio.lowlevel.open_process(
                command, stdout=-1, stderr=log, env=environment()
            )
        assert process.stdout is not None
        said = b""
        async with process.stdout as stdout:
            while not said.endswith(b"\n"):
                piece = await stdout.receive_some()
                assert piece, (self._directory / "log").read_text()
                said += piece

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: int) -> int:
        """Send a signal, and wait for its exit status."""
        assert self._process is not None
        self.signal(number)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * SECONDS):
            await self._process.wait()
        assert self._process.returncode is not None, "the daemon does not end"
        return self._process.returncode


def open_client(directory: Path) -> httpx2.AsyncClient:
    """An HTTP client of the daemon in a directory."""
    transport = httpx2.AsyncHTTPTransport(uds=str(directory / "s"))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=2 * SECONDS)
