"""A server, its devices and the network, with their faults."""

from __future__ import annotations

import re
import zlib
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio.messages import Command, ResultStatus, ToolType
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import MemoryFleet, Network, NetworkLink, open_memory_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask
    from tests.simulation.journal import Journal
    from tests.simulation.plan import DevicePlan, Disturbance, Plan, PlannedCall

LIVENESS: Final = 30.0
HEARTBEAT: Final = 8.0
OPENING: Final = 15.0
_LIMITS: Final = ServerLimits(
    handshake_timeout=OPENING,
    register_timeout=OPENING,
    liveness_timeout=LIVENESS,
    ping_interval=HEARTBEAT,
    send_timeout=20.0,
)


_HEARTBEAT: Final = b'"type":"heartbeat"'
_SESSION: Final = re.compile(rb'"session_id":"[^"]*@([^"]*)"')
_CLOSE_FRAME: Final = b"\x88\x02\x03\xe9"
"""A server's WebSocket close frame: 1001, going away."""


def request_of(call: PlannedCall) -> str:
    """Return the request of a task. Its checksum reveals corruption."""
    text = f"{call.name} {call.seconds} {call.size} {int(call.fails)}"
    return f"{text} {zlib.crc32(text.encode())}"


def result_of(call: PlannedCall) -> dict[str, JSON]:
    """Return the result that a device must produce."""
    return {"name": call.name, "text": call.name[-1] * call.size}


class World:
    """Everything but the constellation.

    Attributes:
        fleet: The server, the devices and the network, while it is `running`.
        working: The number of devices that work on each task.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan = plan
        self.journal = journal
        self.fleet: MemoryFleet
        self.working: dict[str, int] = {}
        self._random = Random(f"world {plan.seed}")
        self._refusals = 0
        # The constellation's connections, by device.
        self._opened: dict[str, list[NetworkLink]] = {device.name: [] for device in plan.devices}
        # Devices whose next acknowledgement is lost.
        self._unacknowledged: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the server and the devices during the block."""
        network = Network(f"network {self.plan.seed}", self.plan.conditions)
        async with open_memory_fleet(
            session=self._session, network=network, limits=_LIMITS, patience=LIVENESS
        ) as self.fleet:
            if self.plan.dishonest:
                self.fleet.on_link = lambda link: link.edit_replies(
                    _DishonestServer(self._random, self.plan.dishonest).edit
                )
            for device in self.plan.devices:
                await self._start_device(device)
            yield

    async def _start_device(self, device: DevicePlan) -> None:
        async def work(request: str) -> dict[str, JSON]:
            return await self._work(device.name, request)

        await self.fleet.start_device(device.name, [work], platform=device.platform, features=[device.feature])

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Open a connection of the constellation."""
        device = config.device_id
        stream = await self.fleet.connect(config)
        link = self.fleet.network.links[-1]
        self._opened[device] = [*self._open_links(device), link]
        self.journal.write("world", "opens", device, len(self._opened[device]))
        if self.plan.has("lost acknowledgement"):
            link.edit_replies(partial(self._lose_acknowledgement, device))
        return stream

    def open_connections(self, device: str) -> int:
        """Count the constellation's open connections for a device."""
        return len(self._open_links(device))

    def _open_links(self, device: str) -> list[NetworkLink]:
        return [link for link in self._opened[device] if not link.client.closed]

    def _lose_acknowledgement(self, device: str, message: bytes) -> Iterable[bytes]:
        found = _SESSION.search(message) if device in self._unacknowledged and _HEARTBEAT in message else None
        if found is None:
            return (message,)
        self._unacknowledged.discard(device)
        self.journal.write("world", "loses acknowledgement", found[1].decode())
        return ()

    @property
    def _links(self) -> list[NetworkLink]:
        return [link for link in self.fleet.network.links if not (link.client.closed or link.server.closed)]

    async def _session(self, task: ServerTask) -> object:
        name = task.request.partition(" ")[0]
        self.journal.write("server", "begins", name, f"{task.device_id} {task.client_id}")
        end = "cancelled"
        try:
            command = Command("work", ToolType.ACTION, {"request": task.request})
            [result] = await task.execute([command], timeout=100)
            end = f"has {result.status}"
        except Exception as error:
            end = f"failed: {type(error).__name__}"
            raise
        else:
            if result.status is not ResultStatus.SUCCESS:
                raise RuntimeError(result.error)
            return result.result
        finally:
            self.journal.write("server", "ends", name, end)

    async def _work(self, device: str, request: str) -> dict[str, JSON]:
        text, _, checksum = request.rpartition(" ")
        if checksum != str(zlib.crc32(text.encode())):
            raise ValueError("the request was corrupted")
        name, seconds, size, fails = text.split(" ")
        self.journal.write("device", "begins", name, device)
        self.working[name] = self.working.get(name, 0) + 1
        end = "cancelled"
        try:
            await trio.sleep(float(seconds))
            end = "failed" if int(fails) else "done"
            if int(fails):
                raise RuntimeError("as requested")
        finally:
            self.working[name] -= 1
            self.journal.write("device", "ends", name, end)
        return {"name": name, "text": name[-1] * int(size)}

    async def disturb(self, step: Disturbance) -> None:
        """Cause a fault, and mend it after its time."""
        fleet = self.fleet
        mend: Callable[[], Awaitable[object]] | None = None
        self.journal.write("world", "disturbs", step.kind, f"{step.device}, {step.number}")
        match step.kind:
            case "refusal of connections":
                self._refuse(1)
                await trio.sleep(step.seconds)
                self._refuse(-1)
            case "death of device" | "leave of device":
                if step.device in fleet.running:
                    await (fleet.kill_device if step.kind == "death of device" else fleet.stop_device)(step.device)
                mend = partial(fleet.start_device, step.device)
            case "death of server" | "stop of server":
                await (fleet.kill_server if step.kind == "death of server" else fleet.stop_server)()
                mend = fleet.start_server
            case "pooled reset" | "pooled partition" | "pooled silence" | "pooled close":
                mend = await self._disturb_pool(step)
            case "lost acknowledgement":
                self._unacknowledged.add(step.device)
            case _:
                mend = self._disturb_link(step)
        if mend is not None:
            await trio.sleep(step.seconds)
            await mend()
        self.journal.write("world", "mends", step.kind, f"{step.device}, {step.number}")

    def _refuse(self, change: int) -> None:
        self._refusals += change
        self.fleet.refuses = self._refusals > 0

    def _disturb_link(self, step: Disturbance) -> Callable[[], Awaitable[object]] | None:
        links = self._links
        if not links:
            return None
        link = links[step.number % len(links)]

        async def heal() -> None:
            link.heal()
            await trio.lowlevel.checkpoint()

        match step.kind:
            case "reset":
                link.reset()
            case "partition":
                link.partition()
                return heal
            case "silence":
                link.go_silent()
            case "slow reader":
                link.slow_reader(server=bool(step.number % 2))
                return heal
            case "corruption":
                link.corrupt(to_server=bool(step.number % 2))
            case _:
                link.shuffle_replies(2 + step.number % 3)
        return None

    async def _disturb_pool(self, step: Disturbance) -> Callable[[], Awaitable[object]] | None:
        """Disturb all connections of a device except the oldest, which is the supervised one."""
        links = [link for link in self._open_links(step.device)[1:] if not link.server.closed]

        async def heal() -> None:
            for link in links:
                link.heal()
            await trio.lowlevel.checkpoint()

        for link in links:
            match step.kind:
                case "pooled reset":
                    link.reset()
                case "pooled partition":
                    link.partition()
                case "pooled silence":
                    link.go_silent()
                case _:
                    # A connection on which the server is sending is left alone. In one step, so that the server cannot begin to send.
                    if not link.server._outward._sending:
                        link.server._outward._put(_CLOSE_FRAME)
        return heal if step.kind == "pooled partition" else None

    async def mend_all(self) -> None:
        """Mend all faults. A silent connection stays silent until one of its ends gives it up."""
        self._refusals = 0
        self.fleet.refuses = False
        for link in self._links:
            link.heal()
        await self.fleet.start_server()
        for device in self.plan.devices:
            if self.plan.has("corruption") and device.name in self.fleet.running:
                # Its registration may have been corrupted.
                await self.fleet.kill_device(device.name)
            await self.fleet.start_device(device.name)


class _DishonestServer:
    """A dishonest server's messages on one connection."""

    def __init__(self, random: Random, percentage: int) -> None:
        self._random = random
        self._percentage = percentage
        self._late: list[bytes] = []

    def edit(self, message: bytes) -> Iterable[bytes]:
        """Return the messages to send in place of one."""
        # A command that arrives twice is run twice.
        if b'"type":"command"' in message:
            return (message,)
        late, self._late = self._late, []
        if self._random.random() * 100 >= self._percentage:
            return (*late, message)
        spoiled: list[Iterable[bytes]] = [
            (),
            (message, message),
            (message[: len(message) // 2],),
            (message.replace(b'"status":', b'"status":7,"was":', 1),),
            (b'{"type": "task_end", "status": "completed", "session_id": "unknown"}', message),
            (message, b'{"type": "error", "status": "error", "error": "unasked"}'),
        ]
        choice = self._random.randrange(len(spoiled) + 1)
        if choice == len(spoiled):
            # Repeated or delayed until the next message, perhaps of the next task.
            self._late = [message]
            return (*late, message) if self._random.random() < 0.5 else late
        return (*late, *spoiled[choice])
