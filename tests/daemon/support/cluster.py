"""Daemons as processes on one PostgreSQL, with AIP servers and agents, for tests that kill and pause them under load."""

from __future__ import annotations

import itertools
import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx2
import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_agent
from galaxy_trio.server import ServerLimits, open_server
from tests.daemon.support.daemon_process import DaemonProcess, Ran, open_client
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from random import Random

    from galaxy_trio.server import Server

LEASE: Final = 3.0
"""Seconds of each daemon's lease."""
_LIMITS: Final = ServerLimits(ping_interval=1.0, liveness_timeout=LEASE)
"""An AIP server notices within a lease that a daemon has stopped."""


class Cluster:
    """Running daemons, servers and agents. Made by `open_cluster`.

    Attributes:
        ran: Counts the tasks that the AIP servers ran.
        servers: The AIP servers.
        daemons: The daemons, which the test kills and starts.
        devices: The names of the devices.
    """

    def __init__(self, directory: Path, daemons: int, devices: int, name: str, ran: Ran) -> None:
        self._name = name
        self.ran = ran
        self.servers: list[Server] = []
        self.directories = [directory / f"daemon-{number}" for number in range(daemons)]
        self.daemons = [DaemonProcess(directory) for directory in self.directories]
        self.devices = [f"d{number}" for number in range(devices)]
        self.clients = [open_client(directory) for directory in self.directories]
        self.down: set[int] = set()
        """The numbers of the daemons that do not run at the moment."""

    async def kill(self, number: int) -> None:
        """Kill a daemon."""
        self.down.add(number)
        await self.daemons[number].end(signal.SIGKILL)

    async def stop(self, number: int) -> int:
        """Stop a daemon as its service manager does, and return its exit status."""
        status = await self.daemons[number].end(signal.SIGTERM)
        self.down.add(number)
        return status

    async def start(self, number: int) -> None:
        """Start a daemon that was killed or stopped."""
        await self.daemons[number].start()
        self.down.discard(number)

    async def pause(self, number: int, seconds: float) -> None:
        """Stop a daemon's process as a whole for a time, as a frozen machine does."""
        self.daemons[number].signal(signal.SIGSTOP)
        self.down.add(number)
        try:
            await trio.sleep(seconds)
        finally:
            self.daemons[number].signal(signal.SIGCONT)
        self.down.discard(number)

    def any_client(self, random: Random) -> httpx2.AsyncClient:
        """The client of a daemon that should be running; of any if none is."""
        numbers = range(len(self.daemons))
        return self.clients[random.choice([number for number in numbers if number not in self.down] or numbers)]

    async def ask_once(self, random: Random, method: str, path: str, **arguments: Any) -> httpx2.Response | None:
        """Ask a daemon. Returns `None` if it does not answer, or says that it cannot at the moment."""
        try:
            response = await self.any_client(random).request(method, path, **arguments)
        except httpx2.TransportError:
            return None
        return response if response.status_code < 500 else None

    async def ask(self, random: Random, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """Ask one daemon after the other until one answers, and not that it cannot at the moment."""
        while (response := await self.ask_once(random, method, path, **arguments)) is None:  # noqa: ASYNC110  # a daemon has no event for it
            await trio.sleep(0.05)
        return response

    async def wait_owned(self, random: Random) -> None:
        """Wait until each device has an owner and is connected."""
        while True:
            response = await self.ask(random, "GET", "/devices")
            devices = response.json()["devices"]
            if len(devices) == len(self.devices) and all(
                device["owner"] is not None and device["status"] in ("idle", "busy") for device in devices
            ):
                return
            await trio.sleep(0.1)

    async def lives_of(self, random: Random, number: int) -> set[str]:
        """The ids of a daemon's lives that are not over."""
        daemons = (await self.ask(random, "GET", "/cluster")).json()["daemons"]
        return {daemon["id"] for daemon in daemons if daemon["name"] == f"daemon-{number}" and daemon["died"] is None}

    async def wait_taken_over(self, random: Random, lives: set[str]) -> None:
        """Wait until lives are over, and each device is owned by another one and connected."""
        while True:
            daemons = (await self.ask(random, "GET", "/cluster")).json()["daemons"]
            living = [daemon for daemon in daemons if daemon["died"] is None]
            owned = sum(daemon["devices"] for daemon in living)
            registered = {name for server in self.servers for name in server.constellations}
            if (
                not lives & {daemon["id"] for daemon in living}
                and owned == len(self.devices)
                and {f"{self._name}@{device}" for device in self.devices} <= registered
            ):
                await self.wait_owned(random)
                return
            await trio.sleep(0.1)

    def logs(self) -> str:
        """What the daemons have logged."""
        return "\n".join((directory / "log").read_text() for directory in self.directories)


class Load:
    """Clients that submit tasks at random daemons, each task with its idempotency key, until the load is stopped.

    Attributes:
        accepted: The id of each accepted task, by its request.
        stopped: Set to stop the clients.
    """

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._numbers = itertools.count()
        self.accepted: dict[str, str] = {}
        self.stopped = trio.Event()

    async def submit(self) -> None:
        """Submit tasks one after the other, each until a daemon accepts it. Half of them name a device."""
        while not self.stopped.is_set():
            number = next(self._numbers)
            request = f"task {number}"
            body: dict[str, Any] = {"request": request, "idempotency_key": request}
            if number % 2:
                body["device"] = self._cluster.devices[number // 2 % len(self._cluster.devices)]
            response = await self._cluster.ask(self._random, "POST", "/tasks", json=body)
            assert response.status_code in (200, 202), response.text
            self.accepted[request] = response.json()["id"]
            await trio.sleep(self._random.uniform(0, 0.2))

    async def ended(self) -> dict[str, dict[str, Any]]:
        """Wait for the end of all tasks, and return each accepted one by its request."""
        while True:
            counts = (await self._cluster.ask(self._random, "GET", "/summary")).json()["tasks"]
            if not counts["queued"] and not counts["running"]:
                break
            await trio.sleep(0.1)
        found: dict[str, dict[str, Any]] = {}
        page: dict[str, Any] = {"before": None}
        while True:
            more = {} if page["before"] is None else {"before": page["before"]}
            page = (await self._cluster.ask(self._random, "GET", "/tasks", params={"limit": 500, **more})).json()
            found.update((task["id"], task) for task in page["tasks"])
            if page["before"] is None:
                return {request: found[task_id] for request, task_id in self.accepted.items()}

    async def result(self, task_id: str) -> object:
        """The result of a task."""
        return (await self._cluster.ask(self._random, "GET", f"/tasks/{task_id}/result")).json()


@asynccontextmanager
async def open_cluster(
    directory: Path,
    database: str,
    cluster: str,
    *,
    daemons: int = 4,
    devices: int = 40,
    drain: float = SECONDS,
    ran: Ran | None = None,
) -> AsyncGenerator[Cluster]:
    """Run daemons, two AIP servers and agents inside the block. With a file as the database, there is one daemon, and no cluster."""
    world = Cluster(directory, daemons, devices, cluster, ran or Ran())
    shared = f'cluster = "{cluster}"\nlease = {LEASE:g}\n' if database.startswith("postgresql") else ""

    async def work(name: str) -> str:
        await trio.sleep(0.01)
        return name

    async def be_agent(url: str, device: str) -> None:
        async with open_agent(url, device, [work], system_info=DeviceInfo(device, "linux"), reconnect_delay=0.05):
            await trio.sleep_forever()

    async with (
        open_server(session=world.ran, limits=_LIMITS) as one,
        open_server(session=world.ran, limits=_LIMITS) as two,
        trio.open_nursery() as nursery,
    ):
        world.servers = [one, two]
        urls = {name: (one.url, two.url)[number % 2] for number, name in enumerate(world.devices)}
        listed = [{"device_id": name, "server_url": url, "max_concurrent_tasks": 2} for name, url in urls.items()]
        for number, place in enumerate(world.directories):
            place.mkdir()
            (place / "devices.json").write_text(json.dumps({"reconnect_delay": 0.2, "devices": listed}))
            (place / "galaxy.toml").write_text(
                f'devices = "devices.json"\nlisten = "unix:{place / "s"}"\ndrain = {drain}\nname = "daemon-{number}"\n'
                f'database = "{database}"\n{shared}'
            )
        for name, url in urls.items():
            nursery.start_soon(be_agent, url, name)
        async with trio.open_nursery() as starting:
            for daemon in world.daemons:
                starting.start_soon(daemon.start)
        try:
            yield world
        finally:
            for daemon in world.daemons:
                await daemon.end(signal.SIGKILL)
            for client in world.clients:
                await client.aclose()
            nursery.cancel_scope.cancel()
