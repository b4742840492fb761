"""Whole graphs that are sent: how many are in memory, and what slow clients delay."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from galaxy_trio.daemon.refusals import DaemonBusy
from galaxy_trio.daemon.store.graph_store import GraphStore
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.daemon.web import graph_responses, http1
from galaxy_trio.daemon.web.graph_handlers import GraphHandlers
from galaxy_trio.graph.model import Graph, Node
from tests.daemon.support.http import open_http
from tests.daemon.support.stored_graphs import run
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from starlette.types import Message, Scope

    from galaxy_trio.daemon.graphs import Graphs
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


@attrs.define(eq=False)
class _Client:
    """A client of a daemon, that reads a response when it may."""

    handlers: GraphHandlers
    may_read: trio.Event = attrs.field(factory=trio.Event)
    begun: trio.Event = attrs.field(factory=trio.Event)
    pieces: list[bytes] = attrs.field(factory=list[bytes])
    length: int | None = None

    async def get(self, graph_id: str, query: bytes = b"") -> dict[str, JSON]:
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path_params": {"id": graph_id},
            "query_string": query,
            "headers": [],
        }
        response = await self.handlers.show_graph(Request(scope))
        await response(scope, self._receive, self._send)
        document = b"".join(self.pieces)
        assert len(document) == self.length
        return cast("dict[str, JSON]", json.loads(document))

    async def _receive(self) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.length = int(dict(message["headers"])[b"content-length"])
            self.begun.set()
            return
        await self.may_read.wait()
        self.pieces.append(message["body"])


@asynccontextmanager
async def _open(tmp_path: Path) -> AsyncGenerator[tuple[Store, GraphHandlers]]:
    async with open_store(tmp_path / "galaxy.db") as store:
        with trio.fail_after(SECONDS):
            yield store, GraphHandlers(store, cast("Graphs", None))


async def _add(store: Store, length: int) -> str:
    return (await store.graphs.add(Graph([Node("a", "x" * length)])))[0].id


async def test_large_graphs_wait_until_others_are_sent_and_small_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_responses, "_MAX_LARGE", 2)
    async with _open(tmp_path) as (store, handlers):
        large, small = await _add(store, graph_responses._MAX_SMALL), await _add(store, 10)
        slow = [_Client(handlers) for _ in range(2)]
        waiting = _Client(handlers)
        async with trio.open_nursery() as nursery:
            for client in slow:
                nursery.start_soon(client.get, large)
                await client.begun.wait()
            nursery.start_soon(waiting.get, large)
            readers = [_Client(handlers) for _ in range(graph_responses._MAX_TOGETHER + 1)]
            for client in readers:
                nursery.start_soon(client.get, small)
                await client.begun.wait()
            assert not waiting.begun.is_set()
            slow[0].may_read.set()
            await waiting.begun.wait()
            assert not slow[1].pieces
            for client in (*slow, *readers, waiting):
                client.may_read.set()


async def test_graph_that_turns_out_to_be_large_waits_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_responses, "_MAX_LARGE", 1)
    async with _open(tmp_path) as (store, handlers):
        graph_id = await _add(store, 10)
        await run(store, graph_id, "a", result=json.dumps("x" * graph_responses._MAX_SMALL))
        first, second = _Client(handlers), _Client(handlers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.get, graph_id, b"format=ours")
            await first.begun.wait()
            small = _Client(handlers)
            small.may_read.set()
            assert "results" not in await small.get(graph_id)
            monkeypatch.setattr(graph_responses, "_WAIT", 0.01)
            with pytest.raises(DaemonBusy, match="retry later"):
                await second.get(graph_id, b"format=ours")
            first.may_read.set()
        second.may_read.set()
        assert (await second.get(graph_id, b"format=ours"))["results"]


async def test_client_that_leaves_makes_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_responses, "_MAX_LARGE", 1)
    async with _open(tmp_path) as (store, handlers):
        large = await _add(store, graph_responses._MAX_SMALL)
        async with trio.open_nursery() as nursery:
            leaving, another = _Client(handlers), _Client(handlers)
            nursery.start_soon(leaving.get, large)
            await leaving.begun.wait()
            nursery.cancel_scope.cancel()
        another.may_read.set()
        assert (await another.get(large))["id"] == large
        assert max(map(len, another.pieces)) == graph_responses._PIECE


async def test_few_graphs_are_read_from_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, release = trio.Semaphore(0), trio.Event()
    whole = GraphStore.whole

    async def read(store: GraphStore, graph_id: str, *, with_results: bool) -> object:
        reading.release()
        await release.wait()
        return await whole(store, graph_id, with_results=with_results)

    monkeypatch.setattr(GraphStore, "whole", read)
    async with _open(tmp_path) as (store, handlers):
        small = await _add(store, 10)
        async with trio.open_nursery() as nursery:
            clients = [_Client(handlers) for _ in range(5)]
            for client in clients:
                client.may_read.set()
                nursery.start_soon(client.get, small)
            for _ in range(graph_responses._MAX_TOGETHER):
                await reading.acquire()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert reading.value == 0
            release.set()
        assert len({b"".join(client.pieces) for client in clients}) == 1


async def test_client_that_does_not_read_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_responses, "_MAX_LARGE", 1)
    monkeypatch.setattr(http1, "_SEND_TIMEOUT", 0.5)
    async with _open(tmp_path) as (store, handlers):
        nodes = [Node(f"n{number}", "x" * 2**20) for number in range(16)]
        large = (await store.graphs.add(Graph(nodes)))[0].id
        app = Starlette(routes=[Route("/graphs/{id}", handlers.show_graph)])
        async with (
            open_http(app, secure=False) as http,
            await trio.open_tcp_stream("127.0.0.1", http.port) as stream,
        ):
            await stream.send_all(f"GET /graphs/{large} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            # It has its place before the other one asks.
            await stream.receive_some(1)
            answer = await http.ask(f"/graphs/{large}")
            assert (answer.status, json.loads(answer.body)["id"]) == (200, large)
