"""Drives a graph by `open_graph`."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import TYPE_CHECKING

import trio

from galaxy_trio import open_constellation
from galaxy_trio.errors import GraphError, GraphFileError
from galaxy_trio.graph import (
    Graph,
    GraphEdited,
    GraphEnded,
    NodeEnded,
    NodeReady,
    NodeSkipped,
    NodeWaiting,
    graph_document,
    open_graph,
    read_graph,
)

from .driver import Refused, View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from galaxy_trio import Constellation
    from galaxy_trio.events import EventStream
    from galaxy_trio.graph import GraphEdit, GraphEvent, GraphRun, GraphSnapshot
    from galaxy_trio.messages import JSON

    from .devices import Devices
    from .driver import Change, Form


class LongestWaits(Random):
    """Lets each wait before another attempt be as long as it may be."""

    def uniform(self, a: float, b: float) -> float:
        del a
        return b


class LibraryDriver:
    """A graph in this process. Made by `open_library`."""

    def __init__(self, nursery: trio.Nursery, constellation: Constellation) -> None:
        self._nursery = nursery
        self._constellation = constellation
        self._run: GraphRun

    async def start(self, graph: Graph | Mapping[str, JSON]) -> None:
        if not isinstance(graph, Graph):
            try:
                graph = read_graph(graph, reset=True).graph
            except GraphFileError as error:
                raise Refused("; ".join(error.problems)) from error
        await self._nursery.start(self._keep_open, graph)

    async def _keep_open(self, graph: Graph, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_graph(self._constellation, graph, random=LongestWaits()) as self._run:
            task_status.started()
            await trio.sleep_forever()

    async def look(self) -> View:
        await trio.testing.wait_all_tasks_blocked()
        return View(self._run.state.value, self._run.snapshot())

    async def export(self, form: Form) -> dict[str, JSON]:
        await trio.lowlevel.checkpoint()
        return graph_document(self._run.snapshot(), format=form)

    async def edit(self, change: Change) -> int:
        def apply(edit: GraphEdit) -> None:
            for source, target in change.disconnect:
                edit.disconnect(source, target)
            for node_id in change.remove:
                edit.remove(node_id)
            for node in change.replace:
                edit.replace(node)
            for node in change.add:
                edit.add(node)
            for edge in change.connect:
                edit.connect(edge)

        await trio.lowlevel.checkpoint()
        with _refusals():
            return self._run.edit(apply, version=change.version)

    async def cancel(self, node_id: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        with _refusals():
            self._run.cancel(node_id)

    async def retry(self, node_id: str) -> None:
        await trio.lowlevel.checkpoint()
        with _refusals():
            self._run.retry(node_id)

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[LibraryWatch]:
        async with self._run.subscribe() as events:
            yield LibraryWatch(events)


class LibraryWatch:
    """Collects the events of a graph in this process."""

    def __init__(self, events: EventStream[GraphEvent | GraphSnapshot]) -> None:
        self._events = events

    async def until(self, state: str) -> dict[str, list[str]]:
        seen: dict[str, list[str]] = {}
        async for event in self._events:
            match event:
                case NodeReady(node_id=node_id):
                    seen.setdefault(node_id, []).append("ready")
                case NodeWaiting(node_id=node_id):
                    seen.setdefault(node_id, []).append("waiting")
                case NodeSkipped(node_id=node_id):
                    seen.setdefault(node_id, []).append("skipped")
                case NodeEnded(node_id=node_id):
                    seen.setdefault(node_id, []).append(event.state.value)
                case GraphEdited():
                    seen.setdefault("", []).append(f"version {event.version}")
                case GraphEnded():
                    seen.setdefault("", []).append(event.state.value)
                    if event.state.value == state:
                        break
                case _:
                    pass
        return seen


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except GraphError as error:
        raise Refused(str(error), getattr(error, "version", None)) from error


@asynccontextmanager
async def open_library(devices: Devices) -> AsyncGenerator[LibraryDriver]:
    """Run a constellation inside the block."""
    async with (
        open_constellation(devices.fleet.configs, connect=devices.connect, reconnect_delay=0.01) as constellation,
        trio.open_nursery() as nursery,
    ):
        await constellation.wait_connected()
        yield LibraryDriver(nursery, constellation)
        nursery.cancel_scope.cancel()
