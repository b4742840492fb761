"""A server process is killed with SIGKILL during 200 tasks and restarted: no task runs twice, none hangs.

``GALAXY_TRIO_KILLS`` says how often; each time at another moment.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
import trio

from galaxy_trio import ConnectionLost
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.messages import TaskResult
from tests.constellation.support.calls import Call
from tests.server.support.killable_server import KillableServer, be_agent, open_killable_server
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.constellation.task import OnCancel

pytestmark = pytest.mark.simulation

TASKS: Final = 200
DEVICES: Final = 10
KILLS: Final = int(os.environ.get("GALAXY_TRIO_KILLS", "3"))
_QUIET: Final = 0.05
"""Seconds that a server needs for the next group of tasks."""


@pytest.fixture
async def killed(tmp_path: Path) -> AsyncGenerator[KillableServer]:
    """Open a server that can be killed."""
    async with open_killable_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("seed", range(KILLS))
async def test_killed_server_loses_only_running_tasks(seed: int, killed: KillableServer) -> None:
    random = Random(seed)
    calls = {f"task {number}": Call() for number in range(TASKS)}
    with trio.fail_after(10 * SECONDS):
        async with trio.open_nursery() as nursery:
            devices = [f"d{number}" for number in range(DEVICES)]
            for device in devices:
                nursery.start_soon(be_agent, killed.url, device)
            configs = [DeviceConfig(device, killed.url, max_concurrent_tasks=2) for device in devices]
            async with open_constellation(configs, reconnect_delay=0.05, random=random) as constellation:
                for number, (name, call) in enumerate(calls.items()):
                    chosen = constellation.devices[devices[number % DEVICES]]
                    how = chosen.run_task if number % 2 else constellation.run_task
                    on_cancel: OnCancel = "abandon" if number % 5 == 0 else "stop"
                    nursery.start_soon(call.run, partial(how, name, on_cancel=on_cancel))
                # Kill the server some time after so many tasks have started.
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
            # This task may have run; all others have.
            assert isinstance(ending, ConnectionLost), ending
            outcomes["lost"] += 1
    # Each device has two slots.
    assert outcomes["lost"] <= 2 * DEVICES
    sys.stdout.write(f"seed {seed}: killed after {enough} had begun: {dict(outcomes)}\n")
