"""A server, its devices, and the network between them and the constellation, with all that may go wrong there."""

from __future__ import annotations

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

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask
    from simulation.journal import Journal
    from simulation.plan import Ask, DevicePlan, Disturbance, Plan

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
        fleet: The server, the devices and the network, while it is `running`.
        working: How often devices work on each task now.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan = plan
        self.journal = journal
        self.fleet: MemoryFleet
        self.working: dict[str, int] = {}
        self._random = Random(f"world {plan.seed}")
        self._refusals = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The server and the devices run in the block."""
        network = Network(f"network {self.plan.seed}", self.plan.conditions)
        async with open_memory_fleet(
            session=self._session, network=network, limits=_LIMITS, patience=LIVENESS
        ) as self.fleet:
            if self.plan.dishonest:
                self.fleet.on_link = lambda link: link.edit_replies(self._spoil)
            for device in self.plan.devices:
                await self._start_device(device)
            yield

    async def _start_device(self, device: DevicePlan) -> None:
        async def work(request: str) -> dict[str, JSON]:
            return await self._work(device.name, request)

        await self.fleet.start_device(device.name, [work], platform=device.platform, features=[device.feature])

    # ---- the network

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
        return [link for link in self.fleet.network.links if not (link.client.closed or link.server.closed)]

    # ---- what is done, at both ends

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

    # ---- what goes wrong

    async def disturb(self, step: Disturbance) -> None:
        """Do it, and mend it when its time is up."""
        fleet = self.fleet
        mend: Callable[[], Awaitable[object]] | None = None
        self.journal.write("world", "disturbs", step.what, f"{step.device}, {step.number}")
        match step.what:
            case "refusal of connections":
                self._refuse(1)
                await trio.sleep(step.seconds)
                self._refuse(-1)
            case "death of device" | "leave of device":
                if step.device in fleet.running:
                    await (fleet.kill_device if step.what == "death of device" else fleet.stop_device)(step.device)
                mend = partial(fleet.start_device, step.device)
            case "death of server" | "stop of server":
                await (fleet.kill_server if step.what == "death of server" else fleet.stop_server)()
                mend = fleet.start_server
            case _:
                mend = self._disturb_link(step)
        if mend is not None:
            await trio.sleep(step.seconds)
            await mend()
        self.journal.write("world", "mends", step.what, f"{step.device}, {step.number}")

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
                link.corrupt(to_server=bool(step.number % 2))
            case _:
                link.shuffle_replies(2 + step.number % 3)
        return None

    async def mend_all(self) -> None:
        """Everything is there and well from now on; what is silent stays so until somebody gives up on it."""
        self._refusals = 0
        self.fleet.refuses = False
        for link in self._links:
            link.heal()
        await self.fleet.start_server()
        for device in self.plan.devices:
            if self.plan.has("corruption") and device.name in self.fleet.running:
                # The server may have been told that it is something else.
                await self.fleet.kill_device(device.name)
            await self.fleet.start_device(device.name)
