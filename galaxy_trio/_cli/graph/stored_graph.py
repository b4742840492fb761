"""A graph in the daemon that is shown while it runs: loaded once, and then followed by the daemon's events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import trio

from galaxy_trio._cli.daemon_reading import is_id, unreadable
from galaxy_trio._cli.daemon_refused import DaemonRefused
from galaxy_trio._cli.graph.outage import Outage, notify
from galaxy_trio._cli.graph.progress import trio_time
from galaxy_trio._cli.graph.stored_devices import StoredDevices
from galaxy_trio._cli.graph.stored_events import StoredNodes
from galaxy_trio._cli.loaded_graph import LoadedGraph, parse_graph
from galaxy_trio.errors import ConnectFailed
from galaxy_trio.graph import GraphEnded, GraphSnapshot, GraphState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from datetime import datetime

    from galaxy_trio._cli.async_daemon_client import AsyncDaemonClient, EventStream
    from galaxy_trio._cli.daemon_reading import DaemonEvent
    from galaxy_trio._cli.graph.shown import AnyEvent, DeviceEvent
    from galaxy_trio._cli.graph.stored_events import Dated

_TOO_LARGE: Final = 413


class StoredGraph:
    """A graph in the daemon. Made by `load_graph`.

    Args:
        client: The daemon.
        graph_id: Its id, as it was asked for.
        loaded: The graph.
    """

    def __init__(self, client: AsyncDaemonClient, graph_id: str, loaded: LoadedGraph) -> None:
        self.record: Final = loaded.record
        """What the daemon said of it first."""
        self.id: Final = graph_id
        self._path = path_of(graph_id)
        self._client = client
        self._nodes = StoredNodes(loaded.snapshot)
        self._time: datetime | None = None
        self._last_id: str | None = None
        self._must_load = True
        self._devices = StoredDevices()
        self._handle_device: Callable[[DeviceEvent], Awaitable[None]] | None = None
        self._outage = Outage(client.shown, self.id)

    def snapshot(self) -> GraphSnapshot:
        """Return the graph as it was last loaded."""
        return self._nodes.snapshot

    def event_time(self) -> float:
        """Return when the last event happened, on trio's clock."""
        return trio_time(self._time)

    def absences(self) -> Iterator[str]:
        """Say why devices that nodes name are not connected."""
        return self._devices.absences()

    async def follow_devices(self, handle: Callable[[DeviceEvent], Awaitable[None]]) -> None:
        """Let `follow` handle those events of the devices that nodes name that concern people, until this is cancelled."""
        self._handle_device = handle
        await trio.sleep_forever()

    async def follow(self, handle: Callable[[AnyEvent], Awaitable[None]]) -> None:
        """Handle the graph as it is, and then its events, until it has ended.

        When the daemon is away, this connects again, and continues after the last event. What happens then is said on stderr. The daemon is
        back when a stream delivers something: one that is opened and ends may belong to a proxy, or to a daemon that stops.

        Raises:
            ConnectFailed: The daemon was away for minutes.
            RequestRejected: The daemon refused, for example because the graph was deleted.
        """

        async def follow() -> None:
            async with self._client.events(self._last_id) as events:
                await self._follow(events, handle)

        await handle(self.snapshot())
        await self._outage.persist(follow)

    async def _follow(self, events: EventStream, handle: Callable[[AnyEvent], Awaitable[None]]) -> None:
        # After the stream was opened, so that nothing is missed. Without an id, it begins with what happens from now on.
        if (self._must_load or self._last_id is None) and await self._load(handle):
            return
        async for event in events:
            if event.kind != "reset":
                # That one says only that the stream is open.
                self._outage.end()
            self._last_id = event.id or self._last_id
            dated, device = self._meaning(event)
            if device is not None and self._handle_device is not None:
                await self._handle_device(device)
            if self._must_load:
                if await self._load(handle):
                    return
            elif await self._handle(dated, handle):
                return
        raise ConnectFailed(f"the daemon at {self._client.shown} closed the connection")

    def _meaning(self, event: DaemonEvent) -> tuple[Iterable[Dated], DeviceEvent | None]:
        """Return what an event of the daemon means for the graph, and that of a device."""
        if event.kind == "reset":
            self._must_load = True
        if event.kind not in ("task", "graph", "device"):
            return (), None
        data = event.data
        if not isinstance(data, dict):
            raise unreadable(self._client.shown, f"an event {event.kind!r} that cannot be read: it is not an object")
        try:
            if event.kind == "device":
                return (), self._devices.follow(data)
            if event.kind == "task":
                if data.get("graph") != self.id:
                    return (), None
                if not is_id(data.get("id")):
                    raise ValueError("it is not about a task")
                return list(self._nodes.follow_task(data)), None
            if data.get("id") != self.id:
                return (), None
            dated = self._nodes.follow_graph(data)
            self._must_load = dated is None
            return list(dated or ()), None
        except ValueError as error:
            raise unreadable(self._client.shown, f"an event {event.kind!r} that cannot be read: {error}") from None

    async def _load(self, handle: Callable[[AnyEvent], Awaitable[None]]) -> bool:
        """Load the graph again. Returns whether it has ended."""
        found = await self._client.get(self._path)
        loaded = await trio.to_thread.run_sync(parse_graph, found, self._client.shown)
        self._must_load = False
        self._devices.named = {node.device for node in loaded.snapshot.graph.nodes if node.device is not None}
        if self._devices.named:
            await self._load_devices()
        await self._handle(self._nodes.load(loaded.snapshot), handle)
        if loaded.state is GraphState.RUNNING:
            return False
        await handle(GraphEnded(loaded.state))
        return True

    async def _load_devices(self) -> None:
        devices = (await self._client.get("/devices")).get("devices")
        if not isinstance(devices, list):
            raise unreadable(self._client.shown, "a list of devices that cannot be read")
        self._devices.load(device for device in devices if isinstance(device, dict))

    async def _handle(self, dated: Iterable[Dated], handle: Callable[[AnyEvent], Awaitable[None]]) -> bool:
        """Handle what has happened. Returns whether the graph has ended."""
        for one in dated:
            self._time = one.time
            await handle(one.event)
            if isinstance(one.event, GraphEnded):
                return True
        return False

    async def load_end(self) -> LoadedGraph:
        """Load the graph with the results of its nodes, unless these are too large together.

        Raises:
            ConnectFailed: The daemon was away for minutes.
            RequestRejected: The daemon refused.
        """
        return await self._outage.persist(self._load_end)

    async def _load_end(self) -> LoadedGraph:
        found = await self._client.get(self._path)
        try:
            found["graph"] = await self._client.get_json(self._path, {"format": "ours"})
        except DaemonRefused as error:
            if error.status != _TOO_LARGE:
                raise
            notify(f"{error}: galaxy-trio task show prints the result of a task")
        return await trio.to_thread.run_sync(parse_graph, found, self._client.shown)


def path_of(graph_id: str) -> str:
    """Return the path of a graph."""
    return f"/graphs/{quote(graph_id, safe='')}"


async def load_graph(client: AsyncDaemonClient, graph_id: str) -> StoredGraph:
    """Load a graph of the daemon.

    Raises:
        RequestRejected: There is no such graph, or the daemon refused for another reason.
        ConnectFailed: Connecting failed, or the connection was lost.
    """
    found = await client.get(path_of(graph_id))
    return StoredGraph(client, graph_id, await trio.to_thread.run_sync(parse_graph, found, client.shown))
