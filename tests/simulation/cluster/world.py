"""A simulated cluster while it runs: its database, its AIP server with devices, its daemons, and their faults."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import trio

from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.daemon.store import store
from galaxy_trio.daemon.store.location import DEFAULT_CLUSTER
from galaxy_trio.daemon.web.graph_handlers import KEY_HEADER
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import Conditions, MemoryFleet, Network, open_memory_fleet
from tests.daemon.support.graph_documents import read_work
from tests.daemon.support.graph_users import Attempts, Reply
from tests.simulation.cluster.database import DatabaseLink, SharedDatabase, current, threads_in_the_event_loop
from tests.simulation.cluster.process import NO_HEADERS, Process, Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.server import ServerTask
    from tests.daemon.support.graph_documents import NodeWork
    from tests.simulation.cluster.plan import ClusterPlan, Fault
    from tests.simulation.cluster.process import Answer
    from tests.simulation.journal import Journal

_RESTART: Final = 1.0
"""Seconds after which a daemon that has ended is started again."""
DRAIN_LIMIT: Final = 45.0
"""Maximum seconds for a daemon to stop."""


class ClusterWorld:
    """Everything in a cluster. Use `open_world`.

    Attributes:
        broken: The promises that were seen to be broken.
        mended: When the last fault ended. A daemon that was killed is a fault only while no other one runs.
        attempts: The attempts of graphs' nodes that the devices got.
    """

    def __init__(self, plan: ClusterPlan, journal: Journal, nursery: trio.Nursery, fleet: MemoryFleet) -> None:
        self.plan = plan
        self.journal = journal
        self.fleet = fleet
        self.broken: list[str] = []
        self.mended: float = trio.current_time()
        self._nursery = nursery
        self._random = Random(f"cluster world {plan.seed}")
        self.database = SharedDatabase()
        self.attempts = Attempts()
        # None while a daemon is down.
        self.processes: list[Process | None] = [None] * plan.daemons
        self._wanted = [trio.Event() for _ in range(plan.daemons)]

    async def keep_daemon(self, number: int) -> None:
        """Run a daemon, and start it again whenever it has ended, as a service manager does."""
        while True:
            await self._wanted[number].wait()
            link = DatabaseLink(
                self.database, Random(f"link {number} {self.plan.seed}"), self.plan.lease, self.plan.latency
            )
            process = self.processes[number] = Process(f"daemon-{number}", self, link)
            self.journal.write("world", "starts", process.name)
            self._nursery.start_soon(process.run)
            await process.gone.wait()
            self.journal.write("world", "is without", process.name)
            self.processes[number] = None
            await trio.sleep(_RESTART)

    async def connect(self, process: Process, config: DeviceConfig) -> trio.abc.Stream:
        """Open a connection of a daemon to a device's server."""
        stream = await self.fleet.connect(config)
        device = config.device_id
        others = [
            other.name
            for other in self.processes
            if other is not None and other is not process and other.open_links(device)
        ]
        if others:
            self.broken.append(f"{process.name} connects to {device} while {others} do at {trio.current_time():.3f}")
        self.journal.write("world", "connects", device, process.name)
        return stream

    @property
    def connected(self) -> bool:
        """Whether each device has an owner, which has registered its connection."""
        names = {f"{DEFAULT_CLUSTER}@{device.name}" for device in self.plan.devices}
        return self.fleet.server is not None and names <= set(self.fleet.server.constellations)

    def any_process(self, random: Random) -> Process | None:
        """A daemon that runs."""
        running = [process for process in self.processes if process is not None]
        return random.choice(running) if running else None

    async def ask(self, random: Random, method: str, path: str, body: dict[str, object] | None = None) -> Answer:
        """Ask one daemon after the other until one answers, and not that it cannot at the moment."""
        while True:
            process = self.any_process(random)
            if process is not None:
                try:
                    answer = await process.ask(method, path, body)
                except Unanswered:
                    pass
                else:
                    if answer.status < 500:
                        return answer
            await trio.sleep(random.uniform(0.1, 0.5))

    async def ask_once(
        self, random: Random, method: str, path: str, body: dict[str, Any] | None = None, *, key: str | None = None
    ) -> Reply | None:
        """Ask a daemon for a user of graphs; see `Ask`."""
        process = self.any_process(random)
        if process is None:
            return None
        try:
            answer = await process.ask(method, path, body, headers=NO_HEADERS if key is None else {KEY_HEADER: key})
        except Unanswered:
            answer = None
        self.journal.write("user", method, path, None if answer is None else answer.status)
        return Reply(answer.status, answer.body) if answer is not None and answer.status < 500 else None

    async def disturb(self, fault: Fault) -> None:
        """Cause a fault, and mend it after its time."""
        self.journal.write("world", "disturbs", fault.kind, f"daemon-{fault.daemon}, {fault.seconds:.2f} s")
        process = self.processes[fault.daemon]
        match fault.kind:
            case "death of server" | "death of device" | "reset":
                await self._disturb_devices(fault)
            case _ if process is None:
                pass
            case "kill" | "stop":
                self._wanted[fault.daemon] = trio.Event()
                if fault.kind == "kill":
                    process.kill()
                    if any(other not in (None, process) for other in self.processes):
                        self.journal.write("world", "goes on without", process.name)
                        self._mend()
                        await self._restart(fault)
                        return
                else:
                    process.stop.set()
                    with trio.move_on_after(DRAIN_LIMIT) as limit:
                        await process.gone.wait()
                    if limit.cancelled_caught:
                        self.broken.append(f"{process.name} did not stop within {DRAIN_LIMIT} s")
                await self._restart(fault)
            case "no renewals":
                process.database.unrenewed += 1
                await trio.sleep(fault.seconds)
                process.database.unrenewed -= 1
            case "drain":
                await self.ask(self._random, "POST", f"/cluster/{process.name}/drain")
            case "cut off":
                await process.cut_off(fault.seconds, holds=bool(fault.number % 2))
            case _:
                await self._disturb_database(fault)
        self._mend()
        self.journal.write("world", "mends", fault.kind, f"daemon-{fault.daemon}")

    def _mend(self) -> None:
        self.mended = trio.current_time()

    async def _restart(self, fault: Fault) -> None:
        await trio.sleep(fault.seconds)
        self._wanted[fault.daemon].set()

    async def _disturb_devices(self, fault: Fault) -> None:
        fleet = self.fleet
        match fault.kind:
            case "death of server":
                await fleet.kill_server()
                await trio.sleep(fault.seconds)
                await fleet.start_server()
            case "death of device":
                name = self.plan.devices[fault.number % len(self.plan.devices)].name
                if name in fleet.running:
                    await fleet.kill_device(name)
                await trio.sleep(fault.seconds)
                await fleet.start_device(name)
            case _:
                links = [link for link in fleet.network.links if not (link.client.closed or link.server.closed)]
                if links:
                    links[fault.number % len(links)].reset()

    async def _disturb_database(self, fault: Fault) -> None:
        """An outage is one of all daemons or of one; the others are of one."""
        running = [process.database for process in self.processes if process is not None]
        hit = self.processes[fault.daemon]
        links = running if fault.number % 2 or hit is None else [hit.database]
        match fault.kind:
            case "short outage" | "long outage":
                for link in links:
                    link.away += 1
                await trio.sleep(fault.seconds)
                for link in links:
                    link.away -= 1
            case "slow commits":
                for link in links:
                    link.slow = fault.seconds
                await trio.sleep(2 * self.plan.lease)
                for link in links:
                    link.slow = 0
            case "commits not done":
                for link in links:
                    link.not_done = 1 + fault.number % 3
            case _:
                for link in links:
                    link.unanswered = 1 + fault.number % 3

    async def session(self, task: ServerTask) -> object:
        """Do the work of a task for its device."""
        work = read_work(task.request)
        if work is not None:
            return await self._work_on_node(task, work)
        name, seconds, fails = task.request.split(" ")
        self.journal.write("device", "begins", name, task.device_id)
        end = "cancelled"
        try:
            await trio.sleep(float(seconds))
            end = "failed" if int(fails) else "done"
        finally:
            self.journal.write("device", "ends", name, end)
        if int(fails):
            raise RuntimeError("as requested")
        return {"name": name}

    async def _work_on_node(self, task: ServerTask, work: NodeWork) -> dict[str, Any]:
        task_id = task.session_id.rpartition("@")[2]
        self.journal.write("device", "begins the node", work.name, f"{task_id} on {task.device_id}")
        fails = self.attempts.begin(task_id, work)
        await trio.sleep(work.seconds)
        if fails:
            raise RuntimeError("as its request says")
        return self.attempts.end(task_id, work)


@asynccontextmanager
async def open_world(plan: ClusterPlan, journal: Journal) -> AsyncGenerator[ClusterWorld]:
    """Run a cluster inside the block. The daemons are killed at its end."""
    network = Network(f"cluster network {plan.seed}", Conditions(latency=plan.latency, jitter=plan.latency))
    limits = ServerLimits(
        handshake_timeout=plan.lease,
        register_timeout=plan.lease,
        liveness_timeout=plan.lease,
        ping_interval=plan.lease / 3,
        send_timeout=plan.lease,
    )

    def database_at(_: Location) -> DatabaseLink | None:
        return current.get()

    async def session(task: ServerTask) -> object:
        return await world.session(task)

    with threads_in_the_event_loop(), mock.patch.object(store, "database_at", database_at):
        async with open_memory_fleet(session=session, network=network, limits=limits, patience=plan.lease) as fleet:
            for device in plan.devices:
                await fleet.start_device(
                    device.name,
                    platform=device.platform,
                    config=DeviceConfig(device.name, fleet.url, max_concurrent_tasks=device.slots),
                )
            await fleet.wait_registered()
            async with trio.open_nursery() as nursery:
                world = ClusterWorld(plan, journal, nursery, fleet)
                with world.database:
                    for number in range(plan.daemons):
                        world._wanted[number].set()
                        nursery.start_soon(world.keep_daemon, number)
                    yield world
                    for process in world.processes:
                        if process is not None:
                            process.kill()
                    nursery.cancel_scope.cancel()
