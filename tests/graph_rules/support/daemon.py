"""Drives a graph by a daemon, over HTTP."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import httpx2
import trio

from galaxy_trio.daemon.run import run_daemon
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.store.location import Location, PostgresqlLocation
from galaxy_trio.graph import Condition, Graph, When, graph_document, read_graph
from tests.daemon.support.listener import Listener, listen_on

from .driver import Refused, View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from galaxy_trio.daemon.web.listening import Address
    from galaxy_trio.graph import Edge
    from galaxy_trio.messages import JSON

    from .devices import Devices
    from .driver import Change, Form


class DaemonDriver:
    """A graph in a daemon. Made by `open_daemon`."""

    def __init__(self, client: httpx2.AsyncClient, socket: str) -> None:
        self._client = client
        self._socket = socket
        self._id = ""

    async def _ask(self, method: str, path: str = "", body: object = None, **query: str) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        response = await self._client.request(method, f"/graphs{path}", content=content, headers=headers, params=query)
        answer = cast("dict[str, Any]", response.json())
        if response.is_error:
            raise Refused(answer["error"], answer.get("version"))
        return answer

    async def start(self, graph: Graph | Mapping[str, JSON]) -> None:
        answer = await self._ask("POST", body=graph_document(graph) if isinstance(graph, Graph) else graph)
        self._id = f"/{answer['id']}"

    async def look(self) -> View:
        answer = await self._ask("GET", self._id)
        return View(answer["state"], read_graph(answer["graph"]))

    async def export(self, form: Form) -> dict[str, JSON]:
        return await self._ask("GET", self._id, format=form)

    async def edit(self, change: Change) -> int:
        body: dict[str, object] = {
            "disconnect": [{"source": source, "target": target} for source, target in change.disconnect],
            "remove": list(change.remove),
            "replace": graph_document(Graph(change.replace))["nodes"],
            "add": graph_document(Graph(change.add))["nodes"],
            "connect": [_edge(edge) for edge in change.connect],
        }
        if change.version is not None:
            body["version"] = change.version
        return int((await self._ask("PATCH", self._id, body))["version"])

    async def cancel(self, node_id: str | None = None) -> None:
        if node_id is None:
            await self._ask("DELETE", self._id)
        else:
            await self._ask("POST", f"{self._id}/nodes/{quote(node_id, safe='')}/cancel")

    async def retry(self, node_id: str) -> None:
        await self._ask("POST", f"{self._id}/nodes/{quote(node_id, safe='')}/retry")

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[DaemonWatch]:
        before = await self._ask("GET", self._id)
        async with listen_on(await trio.open_unix_socket(self._socket), "localhost") as listener:
            yield DaemonWatch(listener, before)


class DaemonWatch:
    """Collects the events of a daemon's graph."""

    def __init__(self, listener: Listener, before: dict[str, Any]) -> None:
        self._listener = listener
        self._last = before
        self._known = {str(node["id"]) for node in before["graph"]["nodes"]}

    async def until(self, state: str) -> dict[str, list[str]]:
        seen: dict[str, list[str]] = {}
        while self._last["state"] != state:
            event = await self._listener.until("graph", id=self._last["id"])
            for node_id, node_state in event["changed"].items():
                # That a new node waits follows from the edit.
                if node_id in self._known or node_state != "waiting":
                    seen.setdefault(node_id, []).append(node_state)
                self._known.add(node_id)
            if event["version"] != self._last["version"]:
                seen.setdefault("", []).append(f"version {event['version']}")
            if event["state"] != self._last["state"] and event["state"] != "running":
                seen.setdefault("", []).append(event["state"])
            self._last = event
        return seen


def _edge(edge: Edge) -> dict[str, object]:
    """An edge as data. Its nodes need not be there."""
    written: dict[str, object] = {"source": edge.source, "target": edge.target, "when": edge.when.value}
    if edge.id is not None:
        written["id"] = edge.id
    if edge.when is When.CONDITION:
        condition = cast("Condition", edge.condition)
        written["condition"] = {"at": condition.at, "is": condition.test, "value": condition.value}
    return written


@asynccontextmanager
async def open_daemon(devices: Devices, directory: Path, database: Location) -> AsyncGenerator[DaemonDriver]:
    """Run a daemon inside the block."""
    socket, stop, listening = str(directory / "s"), trio.Event(), trio.Event()
    listed = [{"device_id": config.device_id, "server_url": config.server_url} for config in devices.fleet.configs]
    (directory / "devices.json").write_text(json.dumps({"devices": listed, "reconnect_delay": 0.01}))
    if isinstance(database, PostgresqlLocation):
        stored = f'database = "{database.url}"\ncluster = "{database.cluster}"\nlease = 600\n'
    else:
        stored = f'database = "{database}"\n'
    settings = directory / "galaxy.toml"
    settings.write_text(f'devices = "devices.json"\nlisten = "unix:{socket}"\ndrain = 0.001\n{stored}')

    def on_listening(_: Address) -> None:
        listening.set()

    async def run() -> None:
        await run_daemon(
            read_settings(settings), stop, on_listening=on_listening, connect=devices.connect, reload_at_hangup=False
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await listening.wait()
        async with httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=socket), base_url="http://localhost", timeout=60
        ) as client:
            yield DaemonDriver(client, socket)
        stop.set()
