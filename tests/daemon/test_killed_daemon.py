"""Kills and stops a daemon under load: no accepted task is missing, none runs twice, none is stuck."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_agent
from galaxy_trio.server import open_server
from tests.daemon.support import daemon as support
from tests.daemon.support.daemon_process import DaemonProcess, Ran, open_client
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


pytestmark = [pytest.mark.daemon, pytest.mark.simulation, pytest.mark.usefixtures("each_database")]

KILLS: Final = int(os.environ.get("GALAXY_TRIO_KILLS", "20"))
DEVICES: Final = 4
TASKS: Final = 80
CLIENTS: Final = 8


@asynccontextmanager
async def open_world(directory: Path) -> AsyncGenerator[tuple[Ran, DaemonProcess]]:
    """A server, its devices and a running daemon."""
    ran = Ran()

    async def work(name: str) -> str:
        await trio.sleep(0.01)
        return name

    async def be_agent(url: str, device: str) -> None:
        async with open_agent(url, device, [work], system_info=DeviceInfo(device, "linux"), reconnect_delay=0.05):
            await trio.sleep_forever()

    daemon = DaemonProcess(directory)
    async with open_server(session=ran) as server, trio.open_nursery() as nursery:
        names = [f"d{number}" for number in range(DEVICES)]
        devices = [{"device_id": name, "server_url": server.url, "max_concurrent_tasks": 2} for name in names]
        (directory / "devices.json").write_text(json.dumps({"devices": devices}))
        settings = support.database_settings
        # The next daemon takes the devices of a killed one when its lease is over.
        lease = "lease = 3\n" if "cluster" in settings else ""
        (directory / "galaxy.toml").write_text(
            f'devices = "devices.json"\nlisten = "unix:{directory / "s"}"\ndrain = {SECONDS}\n{settings}{lease}'
        )
        for name in names:
            nursery.start_soon(be_agent, server.url, name)
        await daemon.start()
        try:
            yield ran, daemon
        finally:
            await daemon.end(signal.SIGKILL)
            nursery.cancel_scope.cancel()


class Submitted:
    """The tasks that clients submitted, and the responses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.accepted: dict[str, str] = {}
        self.unanswered: set[str] = set()

    async def submit_all(self, requests: list[str]) -> None:
        """Submit tasks one after the other, until the daemon does not respond."""
        async with open_client(self._directory) as client:
            for request in requests:
                self.unanswered.add(request)
                try:
                    await self.submit(client, request)
                except httpx2.TransportError:
                    return

    async def submit(self, client: httpx2.AsyncClient, request: str) -> None:
        """Submit a task with its own idempotency key."""
        body: dict[str, Any] = {"request": request, "idempotency_key": request}
        # Half of the tasks name a device, half accept any. Submitting again must send the same request.
        number = int(request.removeprefix("task "))
        if number % 2:
            body["device"] = f"d{number % DEVICES}"
        response = await client.post("/tasks", json=body)
        if response.status_code in (200, 202):
            self.accepted[request] = response.json()["id"]
            self.unanswered.discard(request)


async def _all_ended(directory: Path, accepted: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Wait for the end of each accepted task."""
    ended: dict[str, dict[str, Any]] = {}
    async with open_client(directory) as client:
        for request, task_id in accepted.items():
            task: dict[str, Any] = {"ended": None}
            while task["ended"] is None:
                response = await client.get(f"/tasks/{task_id}", params={"wait": SECONDS})
                assert response.status_code == 200, f"an accepted task is missing: {response.text}"
                task = response.json()
            ended[request] = task
    return ended


@pytest.mark.parametrize("seed", range(KILLS))
async def test_killed_daemon_keeps_every_accepted_task_and_runs_none_twice(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    with trio.fail_after(10 * SECONDS):
        async with open_world(tmp_path) as (ran, daemon):
            submitted = Submitted(tmp_path)
            requests = [f"task {number}" for number in range(TASKS)]
            ran.wanted = random.randrange(1, TASKS // 2)
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(submitted.submit_all, requests[number::CLIENTS])
                await ran.enough.wait()
                await trio.sleep(random.uniform(0, 0.1))
                await daemon.end(signal.SIGKILL)
            known = dict(submitted.accepted)
            await daemon.start()
            # Tasks without a response are submitted again with the same key.
            async with open_client(tmp_path) as client:
                for request in sorted(submitted.unanswered):
                    await submitted.submit(client, request)
            assert not submitted.unanswered
            ended = await _all_ended(tmp_path, submitted.accepted)
            for request, task_id in known.items():
                assert submitted.accepted[request] == task_id
            assert set(ran.begun.values()) == {1}
            lost = [request for request, task in ended.items() if task["state"] == "lost"]
            async with open_client(tmp_path) as client:
                metrics = (await client.get("/metrics")).text
                assert 'galaxy_tasks{state="queued"} 0.0' in metrics
                assert 'galaxy_tasks{state="running"} 0.0' in metrics
                retried = {
                    request: (await client.post(f"/tasks/{ended[request]['id']}/retry")).json()["id"]
                    for request in lost
                }
            again = await _all_ended(tmp_path, retried)
    assert {task["state"] for task in again.values()} <= {"completed"}
    states = Counter(task["state"] for task in ended.values())
    assert set(states) <= {"completed", "lost"}, ended
    for request, task in ended.items():
        if task["state"] == "completed":
            assert task["result"] == request
            assert (ran.begun[request], ran.ended[request]) == (1, 1)
    # At most these were running, or had ended and were not on disk.
    assert states["lost"] <= 4 * DEVICES
    sys.stdout.write(f"seed {seed}: killed after {ran.wanted} had begun, {len(known)} accepted: {dict(states)}\n")


async def test_daemon_stopped_under_load_waits_for_running_tasks_and_leaves_the_others_to_the_next_daemon(
    tmp_path: Path,
) -> None:
    with trio.fail_after(10 * SECONDS):
        async with open_world(tmp_path) as (ran, daemon):
            submitted = Submitted(tmp_path)
            requests = [f"task {number}" for number in range(TASKS)]
            # When the daemon is stopped, all slots are in use and more tasks are queued.
            ran.released = trio.Event()
            ran.wanted = 2 * DEVICES
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(submitted.submit_all, requests[number::CLIENTS])
                await ran.enough.wait()
                await until(lambda: len(submitted.accepted) >= TASKS // 2)
                ran.released.set()
                assert await daemon.end(signal.SIGTERM) == 0
            # All tasks that began have ended.
            assert ran.begun == ran.ended
            assert ran.begun.total() < len(submitted.accepted)
            await daemon.start()
            ended = await _all_ended(tmp_path, submitted.accepted)
    assert {task["state"] for task in ended.values()} == {"completed"}
    assert ran.begun == Counter(submitted.accepted.keys())
    assert "Traceback" not in (tmp_path / "log").read_text()
