"""A graph that is shown while it runs: in this program, or in the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from galaxy_trio._cli.graph.layers import shortened
from galaxy_trio._cli.times import duration, seconds_until
from galaxy_trio.events import (
    CONNECTED,
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    EventsLost,
)
from galaxy_trio.graph import GraphEnded, GraphSnapshot, GraphState
from galaxy_trio.graph.model import MAX_NODES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph import GraphEvent, GraphRun

    AnyEvent: TypeAlias = GraphEvent | GraphSnapshot | EventsLost
    DeviceEvent: TypeAlias = DeviceConnected | DeviceDisconnected | DeviceFailed | DeviceNeedsAttention

_BACKLOG: Final = 4 * MAX_NODES
"""Events that may wait to be printed: one step, such as cancelling the graph, may cause several for each node."""
_DEVICE_EVENTS: Final = (DeviceConnected, DeviceDisconnected, DeviceFailed, DeviceNeedsAttention)


class ShownGraph(Protocol):
    """A graph that is shown while it runs."""

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now."""
        ...

    def event_time(self) -> float:
        """Return when the last event happened, on trio's clock."""
        ...

    def absences(self) -> Iterator[str]:
        """Say why devices that nodes may wait for are not connected."""
        ...

    async def follow(self, handle: Callable[[AnyEvent], Awaitable[None]]) -> None:
        """Handle the graph as it is, and then its events, until it has ended."""
        ...

    async def follow_devices(self, handle: Callable[[DeviceEvent], Awaitable[None]]) -> None:
        """Handle those events of its devices that concern people, until this is cancelled."""
        ...


class LocalGraph:
    """A graph that runs in this program.

    Args:
        run: The graph.
        constellation: Its devices.
    """

    def __init__(self, run: GraphRun, constellation: Constellation) -> None:
        self._run = run
        self._constellation = constellation

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it is now."""
        return self._run.snapshot()

    def event_time(self) -> float:
        """Return when the last event happened, on trio's clock."""
        return trio.current_time()

    def absences(self) -> Iterator[str]:
        """Say why devices are not connected."""
        for device in self._constellation.statistics().devices.values():
            if device.status not in CONNECTED and device.problem is not None:
                yield absence(device.device_id, device.status.value, device.problem, device.next_try)

    async def follow(self, handle: Callable[[AnyEvent], Awaitable[None]]) -> None:
        """Handle the graph as it is, and then its events, until it has ended."""
        async with self._run.subscribe(_BACKLOG) as events:
            # A graph that has ended already has no events.
            ended = self._run.state is not GraphState.RUNNING
            async for event in events:
                await handle(event)
                if ended or isinstance(event, GraphEnded):
                    break

    async def follow_devices(self, handle: Callable[[DeviceEvent], Awaitable[None]]) -> None:
        """Handle the events of all devices that concern people, until this is cancelled."""
        async with self._constellation.subscribe() as events:
            async for event in events:
                if isinstance(event, _DEVICE_EVENTS):
                    await handle(event)


def absence(device_id: str, status: str, problem: str, next_try: str | None) -> str:
    """Say why a device is not connected."""
    left = seconds_until(next_try)
    again = "" if left is None else f" (retry in {duration(left)})"
    return f"{device_id} is {status}: {shortened(problem)}{again}"
