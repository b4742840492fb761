"""A server process that a test can kill, suspend and restart, and an agent for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_agent
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class KillableServer:
    """A server process and its journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: trio.Process | None = None
        self.url = "ws://127.0.0.1:0/ws"

    async def start(self) -> None:
        """Start the process, at the same port as before."""
        port = self.url.rpartition(":")[2].partition("/")[0]
        program = str(Path(__file__).with_name("server_to_kill.py"))
        command = [sys.executable, program, port, str(self._path)]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            piece = await self._process.stdout.receive_some()
            assert piece, "the server did not start"
            line += piece
        self.url = line.decode().strip()

    async def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        # SIGKILL also ends a suspended process.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await self._process.wait()

    def lines(self, word: str) -> list[str]:
        """The tasks in the journal with this word: ``begun`` or ``ended``."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(word)]

    def suspend(self) -> None:
        """Suspend the process with SIGSTOP: its connections stay open without replies."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process with SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def open_killable_server(folder: Path) -> AsyncGenerator[KillableServer]:
    """Run a server process until the block ends, then kill it."""
    server = KillableServer(folder / "journal")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def be_agent(url: str, device: str) -> None:
    """Run an agent whose tool takes 20 ms and that reconnects quickly."""

    async def work(name: str) -> str:
        await trio.sleep(0.02)
        return name

    info = DeviceInfo(device, "linux")
    async with open_agent(url, device, [work], system_info=info, reconnect_delay=0.05):
        await trio.sleep_forever()
