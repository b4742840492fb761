"""A server's process that is killed with SIGKILL in the middle of 200 tasks, and started again: none runs twice, none hangs.

``GALAXY_TRIO_KILLS`` says how often; each time at another moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
import trio
from calls import Call

from galaxy_trio import ConnectionLost, DeviceInfo
from galaxy_trio.agent import open_agent
from galaxy_trio.config import DeviceConfig
from galaxy_trio.constellation import open_constellation
from galaxy_trio.messages import TaskResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.task import OnCancel

pytestmark = pytest.mark.simulation

TASKS: Final = 200
DEVICES: Final = 10
KILLS: Final = int(os.environ.get("GALAXY_TRIO_KILLS", "3"))
_QUIET: Final = 0.05
"""Seconds that a server needs for the next lot of tasks."""


class _Killed:
    """A server's process, and what it has written down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: trio.Process | None = None
        self.url = "ws://127.0.0.1:0/ws"

    async def start(self) -> None:
        """Start it, where it was before."""
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
        """With SIGKILL."""
        assert self._process is not None
        self._process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await self._process.wait()

    def lines(self, word: str) -> list[str]:
        """The tasks that were begun, or ended."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(word)]


@pytest.fixture
async def killed(tmp_path: Path) -> AsyncGenerator[_Killed]:
    """A server that can be killed."""
    server = _Killed(tmp_path / "journal")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def _be_agent(url: str, device: str) -> None:
    async def work(name: str) -> str:
        await trio.sleep(0.02)
        return name

    info = DeviceInfo(device, "linux")
    async with open_agent(url, device, [work], system_info=info, reconnect_delay=0.05):
        await trio.sleep_forever()


@pytest.mark.parametrize("seed", range(KILLS))
async def test_a_server_that_is_killed_loses_what_ran_and_nothing_else(seed: int, killed: _Killed) -> None:
    random = Random(seed)
    calls = {f"task {number}": Call() for number in range(TASKS)}
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            devices = [f"d{number}" for number in range(DEVICES)]
            for device in devices:
                nursery.start_soon(_be_agent, killed.url, device)
            configs = [DeviceConfig(device, killed.url, max_concurrent_tasks=2) for device in devices]
            async with open_constellation(configs, reconnect_delay=0.05, random=random) as constellation:
                for number, (name, call) in enumerate(calls.items()):
                    chosen = constellation.devices[devices[number % DEVICES]]
                    how = chosen.run_task if number % 2 else constellation.run_task
                    on_cancel: OnCancel = "abandon" if number % 5 == 0 else "stop"
                    nursery.start_soon(call.run, partial(how, name, on_cancel=on_cancel))
                # In the middle: when so many have begun, and some time after.
                enough = random.randrange(1, TASKS // 2)
                while len(killed.lines("begun")) < enough:  # noqa: ASYNC110  # it is another process
                    await trio.sleep(0.005)
                await trio.sleep(random.uniform(0, _QUIET))
                await killed.kill()
                await trio.sleep(random.uniform(0, 0.2))
                await killed.start()
                for call in calls.values():
                    await call.ended.wait()
                statistics = constellation.statistics()
                assert (statistics.running, statistics.queued) == (0, 0)
            nursery.cancel_scope.cancel()
    begun, ended = killed.lines("begun"), killed.lines("ended")
    assert len(begun) == len(set(begun))
    outcomes: Counter[str] = Counter()
    for name, call in calls.items():
        ending = call.ending
        if isinstance(ending, TaskResult):
            assert ending.unwrap() == name
            assert name in ended
            outcomes["completed"] += 1
        else:
            # It may have run; all others have.
            assert isinstance(ending, ConnectionLost), ending
            outcomes["lost"] += 1
    # Each device had two slots, and those of the other way share them.
    assert outcomes["lost"] <= 2 * DEVICES
    sys.stdout.write(f"seed {seed}: killed after {enough} had begun: {dict(outcomes)}\n")
