"""A server, its devices, and the network between them and the constellation, with all that may go wrong there."""

from __future__ import annotations

import zlib
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import DeviceInfo
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import Command, ResultStatus, ToolType
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import MemoryServer, Network, NetworkLink, open_memory_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from galaxy_trio.config import DeviceConfig
    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask
    from galaxy_trio.transports import TransportName
    from simulation.journal import Journal
    from simulation.plan import Ask, DevicePlan, Disturbance, Plan

URL: Final = "ws://server.test/ws"
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


def request_of(ask: Ask) -> str:
    """What a device is asked to do; the sum shows what was changed on the way."""
    text = f"{ask.name} {ask.seconds} {ask.size} {int(ask.fails)}"
    return f"{text} {zlib.crc32(text.encode())}"


def result_of(ask: Ask) -> dict[str, JSON]:
    """What it is to give back."""
    return {"name": ask.name, "text": ask.name[-1] * ask.size}


class World:
    """All that is not the constellation.

    Attributes:
        server: The one that runs now; None while there is none.
        changed: Whether anything was changed on its way, so that what came of it says nothing.
    """

    def __init__(self, plan: Plan, journal: Journal, nursery: trio.Nursery, transport: TransportName) -> None:
        self.plan = plan
        self.journal = journal
        self.nursery = nursery
        self.transport: TransportName = transport
        self.network = Network(f"network {plan.seed}", plan.conditions)
        self.server: MemoryServer | None = None
        self.changed = False
        self.working: dict[str, int] = {}
        self._random = Random(f"world {plan.seed}")
        self._serving: trio.Nursery | None = None
        self._stop_server = trio.Event()
        self._server_scope = trio.CancelScope()
        self._agents: dict[str, tuple[trio.CancelScope, trio.Event]] = {}
        self._refuses = 0

    # ---- the network

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """For `open_constellation`."""
        return await self.open_link(config.device_id)

    async def open_link(self, name: str) -> trio.abc.Stream:
        """A way to the server, if there is one."""
        await trio.sleep(self.plan.conditions.latency)
        if self._serving is None or self.server is None or self._refuses:
            raise OSError(f"nobody listens for {name}")
        link = self.network.connect()
        if self.plan.dishonest:
            link.edit_replies(self._spoil)
        self._serving.start_soon(self.server.serve_stream, link.server)
        return link.client

    def _spoil(self, message: bytes) -> Iterable[bytes]:
        # A command that comes twice is to be done twice.
        if self._random.random() * 100 >= self.plan.dishonest or b'"type":"command"' in message:
            return (message,)
        spoiled: list[Iterable[bytes]] = [
            (),
            (message, message),
            (message[: len(message) // 2],),
            (message.replace(b'"status":', b'"status":7,"was":', 1),),
            (b'{"type": "task_end", "status": "completed", "session_id": "nobody\'s"}', message),
            (message, b'{"type": "error", "status": "error", "error": "nobody asked"}'),
        ]
        return self._random.choice(spoiled)

    @property
    def _links(self) -> list[NetworkLink]:
        return [link for link in self.network.links if not (link.client.closed or link.server.closed)]

    # ---- the server

    async def start_server(self) -> None:
        """Let there be a server, if there is none."""
        if self.server is None:
            await self.nursery.start(self._run_server)

    async def _run_server(self, *, task_status: trio.TaskStatus[None]) -> None:
        stop = self._stop_server = trio.Event()
        with trio.CancelScope() as self._server_scope:
            async with trio.open_nursery() as serving:
                async with open_memory_server(
                    session=self._session, limits=_LIMITS, transport=self.transport
                ) as server:
                    self.server, self._serving = server, serving
                    task_status.started()
                    await stop.wait()
                    self.server = self._serving = None
                serving.cancel_scope.cancel()

    async def end_server(self, *, politely: bool) -> None:
        """Stop it in good order, or kill it."""
        if politely:
            self._stop_server.set()
        else:
            self.server = self._serving = None
            self._server_scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _session(self, task: ServerTask) -> object:
        name = task.request.partition(" ")[0]
        self.journal.write("server", "begins", name, task.device_id)
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

    # ---- the devices

    async def start_device(self, device: DevicePlan) -> None:
        """Let a device come, if it is not there."""
        if device.name in self._agents:
            return
        scope, leave = trio.CancelScope(), trio.Event()
        self._agents[device.name] = scope, leave
        self.nursery.start_soon(self._be_device, device, scope, leave)
        await trio.lowlevel.checkpoint()

    async def _be_device(self, device: DevicePlan, scope: trio.CancelScope, leave: trio.Event) -> None:
        async def work(request: str) -> dict[str, JSON]:
            return await self._work(device.name, request)

        info = DeviceInfo(device.name, device.platform, supported_features=[device.feature])
        with scope:
            async with open_agent(
                URL,
                device.name,
                [work],
                system_info=info,
                connect=partial(self.open_link, device.name),
                connect_timeout=OPENING,
                register_timeout=OPENING,
                heartbeat_interval=HEARTBEAT,
                liveness_timeout=LIVENESS,
                transport=self.transport,
                random=Random(f"agent {self.plan.seed}"),
            ):
                await leave.wait()

    async def _work(self, device: str, request: str) -> dict[str, JSON]:
        text, _, checksum = request.rpartition(" ")
        if checksum != str(zlib.crc32(text.encode())):
            raise ValueError("this was changed on its way")
        name, seconds, size, fails = text.split(" ")
        self.journal.write("device", "begins", name, device)
        self.working[name] = self.working.get(name, 0) + 1
        end = "cancelled"
        try:
            await trio.sleep(float(seconds))
            end = "failed" if int(fails) else "done"
            if int(fails):
                raise RuntimeError("as it was told")
        finally:
            self.working[name] -= 1
            self.journal.write("device", "ends", name, end)
        return {"name": name, "text": name[-1] * int(size)}

    async def end_device(self, name: str, *, politely: bool) -> None:
        """Let it leave, or kill it."""
        scope, leave = self._agents.pop(name, (None, None))
        if politely and leave is not None:
            leave.set()
        elif scope is not None:
            scope.cancel()
        await trio.lowlevel.checkpoint()

    # ---- what goes wrong

    async def disturb(self, step: Disturbance) -> None:
        """Do it, and mend it when its time is up."""
        devices = {device.name: device for device in self.plan.devices}
        mend: Callable[[], Awaitable[object]] | None = None
        self.journal.write("world", "disturbs", step.what, f"{step.device}, {step.number}")
        match step.what:
            case "refusal of connections":
                self._refuses += 1
                await trio.sleep(step.seconds)
                self._refuses -= 1
            case "death of device" | "leave of device":
                await self.end_device(step.device, politely=step.what == "leave of device")
                mend = partial(self.start_device, devices[step.device])
            case "death of server" | "stop of server":
                await self.end_server(politely=step.what == "stop of server")
                mend = self.start_server
            case _:
                mend = self._disturb_link(step)
        if mend is not None:
            await trio.sleep(step.seconds)
            await mend()
        self.journal.write("world", "mends", step.what, f"{step.device}, {step.number}")

    def _disturb_link(self, step: Disturbance) -> Callable[[], Awaitable[object]] | None:
        links = self._links
        if not links:
            return None
        link = links[step.number % len(links)]

        async def heal() -> None:
            link.heal()
            await trio.lowlevel.checkpoint()

        match step.what:
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
                self.changed = True
                link.corrupt(to_server=bool(step.number % 2))
            case _:
                link.shuffle_replies(2 + step.number % 3)
        return None

    async def mend_all(self) -> None:
        """Everything is there and well from now on; what is silent stays so until somebody gives up on it."""
        self._refuses = 0
        for link in self._links:
            link.heal()
        await self.start_server()
        for device in self.plan.devices:
            await self.start_device(device)
