"""A daemon in the test's process, with a server and devices in memory and HTTP over a real Unix socket."""

from __future__ import annotations

import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httpx2
import pytest
import trio
import trio.testing
from sqlalchemy import update

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.daemon.run import run_daemon
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.schema import DAEMONS
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.testing.memory_fleet import MemoryFleet, open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.support import waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.daemon.web.listening import Address
    from galaxy_trio.messages import JSON

SECONDS = 2 * waiting.SECONDS
"""Maximum seconds for a test with a daemon."""
database_settings = ""
"""The settings of the daemons' database, unless it is the default; see the fixture `each_database`."""


class RunningDaemon:
    """A daemon with its devices and a client. Made by `open_daemon`."""

    def __init__(self, directory: Path, fleet: MemoryFleet, work: Work) -> None:
        self.directory = directory
        self.fleet = fleet
        self.work = work
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.client: httpx2.AsyncClient
        self.url = ""

    async def ask(self, method: str, path: str, status: int = 200, **arguments: Any) -> dict[str, Any]:
        """Send a request, check the status of the response, and return its JSON object."""
        response = await self.client.request(method, path, **arguments)
        assert response.status_code == status, response.text
        return cast("dict[str, Any]", response.json())

    async def submit(self, request: str, device: str | None = "d1", **more: JSON) -> str:
        """Submit a task, and return its id."""
        body = {"request": request, **({} if device is None else {"device": device}), **more}
        return str((await self.ask("POST", "/tasks", 202, json=body))["id"])

    async def ended_task(self, task_id: str) -> dict[str, Any]:
        """Wait for the end of a task, and return the task."""
        task = await self.ask("GET", f"/tasks/{task_id}", params={"wait": waiting.SECONDS})
        assert task["ended"] is not None, task
        return task

    async def state(self, task_id: str) -> str:
        """The state of a task."""
        return str((await self.ask("GET", f"/tasks/{task_id}"))["state"])

    async def wait_state(self, task_id: str, state: str) -> None:
        """Wait until a task is in a state."""
        while await self.state(task_id) != state:  # noqa: ASYNC110
            await trio.sleep(0.005)

    async def wait_connected(self, count: int) -> None:
        """Wait until a number of devices are connected."""
        while (await self.client.get("/ready")).json()["connected"] < count:  # noqa: ASYNC110
            await trio.sleep(0.005)

    async def reload(self) -> None:
        """Make the daemon reload its configuration."""
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked(0.02)

    async def kill(self) -> None:
        """End the daemon without its last writes, as SIGKILL does. Its lease is over then."""

        async def write_nothing(*_: object, **__: object) -> NoReturn:
            await trio.lowlevel.checkpoint()
            raise StoreError("the daemon was killed")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "write", write_nothing)
            self.scope.cancel()
            await self.ended.wait()
        # It needs the driver of PostgreSQL.
        from tests.daemon.support.lives import open_engine  # noqa: PLC0415

        settings = read_settings(self.directory / "galaxy.toml")
        with open_engine(settings.database) as engine, engine.begin() as connection:
            connection.execute(update(DAEMONS).where(DAEMONS.c.name == settings.name).values(expires=0.0))

    async def wait_stopping(self) -> None:
        """Wait until the daemon is stopping."""
        while (await self.client.get("/ready")).status_code != 503:  # noqa: ASYNC110
            await trio.sleep(0.005)

    def devices(self, *names: str, **more: JSON) -> None:
        """Write the file with the devices."""
        devices = [{"device_id": name, "server_url": self.fleet.url, **more} for name in names]
        (self.directory / "devices.json").write_text(json.dumps({"devices": devices}))


@asynccontextmanager
async def open_daemon(
    directory: Path,
    *names: str,
    settings: str = "",
    listen: str = "",
    work: Work | None = None,
    drain: float = 0.5,
    seconds: float = SECONDS,
) -> AsyncGenerator[RunningDaemon]:
    """Run a daemon with these devices inside the block, with its files in the directory."""
    work = work or Work()
    listen = listen or f"unix:{directory / 's'}"
    with trio.fail_after(seconds):
        async with open_memory_fleet(*names, session=work) as fleet:
            running = RunningDaemon(directory, fleet, work)
            running.devices(*names)
            (directory / "galaxy.toml").write_text(
                f'devices = "devices.json"\nlisten = "{listen}"\ndrain = {drain}\n{database_settings}{settings}'
            )
            async with open_background() as nursery:
                await nursery.start(_run, running)
                unix = not running.url.startswith("http")
                transport = httpx2.AsyncHTTPTransport(uds=str(directory / "s") if unix else None)
                base = "http://localhost" if unix else running.url
                async with httpx2.AsyncClient(
                    transport=transport, base_url=base, timeout=2 * waiting.SECONDS
                ) as client:
                    running.client = client
                    yield running
                running.stop.set()
                await running.ended.wait()


async def _run(running: RunningDaemon, *, task_status: trio.TaskStatus[None]) -> None:
    def started(address: Address) -> None:
        running.url = str(address)
        task_status.started()

    settings = read_settings(running.directory / "galaxy.toml")
    try:
        with running.scope:
            await run_daemon(settings, running.stop, on_listening=started, connect=running.fleet.connect)
    finally:
        running.ended.set()
