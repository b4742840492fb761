"""Calls that run concurrently with a test, and the world in which they run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing

from galaxy_trio._concurrency.background import contains_cancelled
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.testing import FaultyStream
from tests.constellation.support.fleet import Fleet, device_config, open_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.device import Device
    from galaxy_trio.messages import TaskResult
    from galaxy_trio.server import ServerLimits


@attrs.define(eq=False)
class Call:
    """A call in its own trio task, and its single end."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    _endings: list[object] = attrs.field(factory=list[object])

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make the call, and record its result or exception."""
        with self.scope:
            try:
                self._endings.append(await call())
            except BaseException as error:
                self._endings.append(error)
                if contains_cancelled(error) or not isinstance(error, Exception):
                    raise
            finally:
                self.ended.set()

    @property
    def ending(self) -> object:
        """The result or exception."""
        [ending] = self._endings
        return ending

    @property
    def cancelled(self) -> bool:
        """Whether the call ended by its cancellation."""
        return isinstance(self.ending, BaseException) and contains_cancelled(self.ending)

    @property
    def result(self) -> TaskResult:
        """The result of a task."""
        result: TaskResult = self.ending  # type: ignore[assignment]
        return result

    @property
    def echo(self) -> str:
        """The echoed request in the result of a task."""
        echo: str = self.result.unwrap()["echo"]  # type: ignore[assignment,call-overload,index]
        return echo


async def start(nursery: trio.Nursery, call: Callable[[], Awaitable[object]], name: str | None = None) -> Call:
    """Start a call, and wait until all tasks are blocked."""
    started = Call()
    nursery.start_soon(started.run, call, name=name)
    await trio.testing.wait_all_tasks_blocked()
    return started


@attrs.define(eq=False)
class World:
    """A server with devices, and a constellation of them.

    Attributes:
        streams: The client ends of all connections so far, in order, including those of tasks.
        problems: Consumed by the next attempts to connect: an error, or a stream to something else.
    """

    fleet: Fleet
    constellation: Constellation = attrs.field(init=False)
    streams: list[FaultyStream] = attrs.field(factory=list[FaultyStream])
    problems: list[Exception | trio.abc.Stream] = attrs.field(factory=list["Exception | trio.abc.Stream"])

    @property
    def a(self) -> Device:
        """The device `a`, often the only one."""
        return self.constellation.devices["a"]

    @property
    def begun(self) -> list[str]:
        """The requests whose sessions have begun, in order."""
        return self.fleet.work.begun

    @property
    def connections(self) -> int:
        """The number of connections on the server."""
        assert self.fleet.server is not None
        return self.fleet.server.statistics().connections

    async def connect(self, config: DeviceConfig) -> trio.abc.Stream:
        """Open a stream, for `open_constellation`."""
        if self.problems:
            problem = self.problems.pop(0)
            if isinstance(problem, Exception):
                raise problem
            return problem
        stream = FaultyStream(await self.fleet.connect(config))
        self.streams.append(stream)
        return stream

    def nothing_is_held(self) -> None:
        """Check that no slot is taken, no place is queued, no session runs, and only supervised and idle connections are open."""
        statistics = self.constellation.statistics()
        assert (statistics.running, statistics.queued, statistics.unassigned) == (0, 0, 0)
        assert self.fleet.server is not None
        held = self.fleet.server.statistics()
        assert (held.sessions, held.ending_sessions) == (0, 0)
        devices = len(statistics.devices)
        idle = sum(device.idle_connections for device in statistics.devices.values())
        assert (held.connections, held.constellations) == (2 * devices + idle, devices + idle)
        assert set(self.fleet.work.running.values()) <= {0}


@asynccontextmanager
async def open_world(
    *devices: DeviceConfig | str, limits: ServerLimits | None = None, **arguments: object
) -> AsyncGenerator[World]:
    """Open a server with these devices, and a constellation that is connected to them."""
    configs = [device_config(device) if isinstance(device, str) else device for device in devices]
    async with open_fleet(*(config.device_id for config in configs), limits=limits) as fleet:
        world = World(fleet)
        async with open_constellation(configs, connect=world.connect, **arguments) as constellation:  # type: ignore[arg-type]
            world.constellation = constellation
            await constellation.wait_connected()
            yield world
