"""The processes of the soak: its server and its devices, each of which answers one line with one line.

``python -m tests.soak.processes BREAKAGE server FOLDER`` and ``python -m tests.soak.processes BREAKAGE devices FOLDER URL COUNT``; the
breakage may be the empty word. The line ``sample`` asks for what the process uses, ``idle`` for that and its objects, and ``write`` for
its journal in the folder. The process ends when its standard input does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio
from cattrs import structure

from galaxy_trio import ConnectionOptions, DeviceInfo
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import ServerLimits, ServerTask, open_server
from tests.soak.breakages import break_package
from tests.soak.journals import Counts
from tests.soak.samples import Idle, Sample, take_idle_sample, take_sample
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

OPTIONS: Final = ConnectionOptions(liveness_timeout=5, heartbeat_interval=1, connect_timeout=5, register_timeout=5)
_LIMITS: Final = ServerLimits(max_connections=5_000, liveness_timeout=5, ping_interval=1, send_timeout=5)


@attrs.frozen
class Report:
    """A process's answer to ``sample``.

    Attributes:
        sample: What it uses.
        busy: The numbers of what still goes on in it, by name. All are 0 when the process is idle.
    """

    sample: Sample
    busy: dict[str, int]


class SoakEnded(Exception):
    """The soak cannot continue. The text is the problem."""


class Process:
    """A process of the soak. Made by `open_process`."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self._name = name
        self._process = process
        self._received = b""

    async def read_line(self) -> str:
        """Wait for the next line.

        Raises:
            SoakEnded: The process has ended.
        """
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            piece = await self._process.stdout.receive_some()
            if not piece:
                raise SoakEnded(f"the process of the {self._name} has ended: its traceback is above")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    async def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError):
            await self._process.stdin.send_all(f"{line}\n".encode())
        return await self.read_line()

    async def report(self) -> Report:
        """Ask for a report."""
        return structure(json.loads(await self._ask("sample")), Report)

    async def report_idle(self) -> Idle:
        """Ask for what the process uses, while it is idle."""
        return structure(json.loads(await self._ask("idle")), Idle)

    async def write(self) -> None:
        """Have the journals written."""
        await self._ask("write")


@asynccontextmanager
async def open_process(breakage: str, role: str, *arguments: object) -> AsyncGenerator[Process]:
    """Run one of the processes until the block ends."""
    command = [sys.executable, "-m", __name__, breakage, role, *map(str, arguments)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Process(role, process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await process.wait()


async def _answer(busy: Callable[[], dict[str, int]], journals: dict[Path, Counts]) -> None:
    """Answer the lines of standard input until its end."""
    async with trio.lowlevel.FdStream(0) as stdin:
        received = b""
        while piece := await stdin.receive_some():
            *lines, received = (received + piece).split(b"\n")
            for line in lines:
                if line == b"write":
                    for path, counts in journals.items():
                        counts.write(path)
                _print(attrs.asdict(take_idle_sample() if line == b"idle" else Report(take_sample(), busy())))


def _print(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def number_of(request: str) -> int:
    """The number of a task, at the beginning of its request."""
    return int(request.partition(" ")[0])


async def _serve(folder: Path) -> None:
    sessions = Counts()

    async def session(task: ServerTask) -> object:
        number = number_of(task.request)
        sessions.add(number)
        name = "work_in_thread" if number % 4 == 0 else "work"
        [result] = await task.execute([Command(name, ToolType.ACTION, {"request": task.request})])
        return result.result

    async with open_server(session=session, limits=_LIMITS) as server:
        _print(server.url)

        def busy() -> dict[str, int]:
            now = server.statistics()
            clients = now.devices + now.constellations
            return {
                "sessions": now.sessions,
                "sessions that clean up": now.ending_sessions,
                "unanswered batches of commands": now.unanswered_commands,
                "connections without a registered client": max(0, now.connections - clients),
                "registered clients without a connection": max(0, clients - now.connections),
            }

        await _answer(busy, {folder / "sessions": sessions})


async def _be_devices(folder: Path, url: str, count: int) -> None:
    begun, done = Counts(), Counts()

    @tool
    async def work(request: str) -> str:
        begun.add(number_of(request))
        await trio.sleep(0.02)
        done.add(number_of(request))
        return request

    @tool
    def work_in_thread(request: str) -> str:
        begun.add(number_of(request))
        time.sleep(0.02)
        done.add(number_of(request))
        return request

    agents: dict[str, bool] = {}

    async def be_agent(device: str) -> None:
        info = DeviceInfo(device, "linux")
        async with open_agent(
            url, device, [work, work_in_thread], system_info=info, reconnect_delay=0.2, options=OPTIONS
        ) as agent:
            while True:
                agents[device] = agent.registered
                await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(be_agent, f"d{number}")
        journals = {folder / "begun": begun, folder / "done": done}
        await _answer(lambda: {"devices that are not registered": count - sum(agents.values())}, journals)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run the process that the arguments name."""
    breakage, role, folder, *rest = sys.argv[1:]
    with break_package(breakage):
        if role == "server":
            trio.run(_serve, Path(folder))
        else:
            url, count = rest
            trio.run(_be_devices, Path(folder), url, int(count))


if __name__ == "__main__":
    main()
