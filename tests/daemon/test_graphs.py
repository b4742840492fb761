"""Task graphs over HTTP: they are accepted, run on the devices, edited, cancelled and retried, and survive the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio

from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]


def _node(node_id: str, request: str = "echo", **more: JSON) -> dict[str, JSON]:
    return {"id": node_id, "request": request, "device": "d1", **more}


def _edges(*pairs: str, **more: JSON) -> list[JSON]:
    return [{"source": pair[0], "target": pair[1], **more} for pair in pairs]


async def _submit(daemon: RunningDaemon, nodes: list[dict[str, JSON]], edges: list[JSON] | None = None) -> str:
    document = {"nodes": nodes, "edges": edges or []}
    return str((await daemon.ask("POST", "/graphs", 202, json=document))["id"])


async def _until(daemon: RunningDaemon, graph: str, state: str) -> dict[str, Any]:
    """Wait until a graph is in a state, and return it with its nodes."""
    while True:
        found = await daemon.ask("GET", f"/graphs/{graph}")
        if found["state"] == state:
            return found
        await trio.sleep(0.01)


async def _until_nodes(daemon: RunningDaemon, graph: str, **states: str) -> None:
    while not states.items() <= _states(await daemon.ask("GET", f"/graphs/{graph}")).items():  # noqa: ASYNC110  # HTTP has no event for it
        await trio.sleep(0.01)


def _states(graph: dict[str, Any]) -> dict[str, str]:
    results = graph["graph"].get("results", {})
    return {node["id"]: results.get(node["id"], {}).get("state", "waiting") for node in graph["graph"]["nodes"]}


async def test_nodes_run_in_the_order_of_their_edges_and_get_the_results_before_them(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, [_node("a", "echo one"), _node("b"), _node("c")], _edges("ab", "bc"))
        ended = await _until(daemon, graph, "completed")
        assert ended["nodes"] == {"completed": 3}
        first, second, third = daemon.work.begun
        assert first == "echo one"
        assert second.startswith("Task Description: echo\n")
        assert '"echo": "one"' in second
        assert '{"task": "b", "state": "completed"' in third
        task = ended["graph"]["results"]["a"]["task_id"]
        assert (await daemon.ask("GET", f"/tasks/{task}"))["result"] == {"device": "d1", "echo": "one"}


async def test_graph_goes_on_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, [_node("a", "hold a"), _node("b"), _node("c")], _edges("ab", "bc"))
        await _until_nodes(daemon, graph, a="running")
        daemon.stop.set()
        await daemon.wait_stopping()
        daemon.work.release("a")
    async with open_daemon(tmp_path, "d1") as daemon:
        assert (await _until(daemon, graph, "completed"))["nodes"] == {"completed": 3}


async def test_node_that_ran_when_the_daemon_was_killed_is_lost_and_its_graph_goes_on(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(
            daemon, [_node("a", "wait"), _node("b"), _node("c")], [*_edges("ab"), *_edges("ac", when="failure")]
        )
        await _until_nodes(daemon, graph, a="running")
        await daemon.kill()
    async with open_daemon(tmp_path, "d1") as daemon:
        ended = await _until(daemon, graph, "partially failed")
        assert _states(ended) == {"a": "lost", "b": "skipped", "c": "completed"}


async def test_same_key_returns_the_same_graph_and_another_graph_with_it_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        key = {"Idempotency-Key": "monthly"}
        document = {"nodes": [_node("a")]}
        first = await daemon.ask("POST", "/graphs", 202, json=document, headers=key)
        again = await daemon.ask("POST", "/graphs", 200, json=document, headers=key)
        assert again["id"] == first["id"]
        other = {"nodes": [_node("b")]}
        assert "another key" in (await daemon.ask("POST", "/graphs", 409, json=other, headers=key))["error"]
        refused = await daemon.ask("POST", "/graphs", 400, json=other, headers={"Idempotency-Key": "x" * 901})
        assert "Idempotency-Key" in refused["error"]


async def test_refusal_of_an_edit_has_the_status_of_its_reason(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, [_node("a", "hold a"), _node("b"), _node("c")], _edges("ab", "bc"))
        await _until_nodes(daemon, graph, a="running")
        assert (await daemon.ask("PATCH", f"/graphs/{graph}", json={"version": 0, "remove": ["c"]}))["version"] == 1
        refused = await daemon.ask("PATCH", f"/graphs/{graph}", 409, json={"version": 0, "remove": ["b"]})
        assert refused["version"] == 1
        await daemon.ask("PATCH", f"/graphs/{graph}", 404, json={"remove": ["c"]})
        await daemon.ask("PATCH", f"/graphs/{graph}", 409, json={"remove": ["a"]})
        await daemon.ask("PATCH", f"/graphs/{graph}", 422, json={"connect": _edges("bb")})
        daemon.work.release("a")


async def test_invalid_graph_or_edit_is_refused_with_the_place_of_each_problem(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        document = {"nodes": [{"id": "a"}, _node("b", priority="high")], "edges": _edges("bz")}
        refusal = await daemon.ask("POST", "/graphs", 422, json=document)
        error = refusal["error"]
        assert error == "; ".join(refusal["problems"])
        places = [problem.partition(":")[0] for problem in refusal["problems"]]
        assert places == ["nodes[0].request", "nodes[1].priority", "edges[0].target"]
        bad: list[JSON] = [{"id": "a", "no": 1}] * 100
        refusal = await daemon.ask("POST", "/graphs", 422, json={"nodes": bad})
        assert len(refusal["problems"]) == 299
        assert refusal["error"] == "; ".join(refusal["problems"][:20])
        assert "nodes[0].request" in error
        assert "nodes[1].priority" in error
        assert "'nodes': [" not in error
        assert "must be a graph" in (await daemon.ask("POST", "/graphs", 400, json=[]))["error"]
        graph = await _submit(daemon, [_node("a", "hold a")])
        assert "must be an edit" in (await daemon.ask("PATCH", f"/graphs/{graph}", 400, json=[]))["error"]
        many = {"remove": ["a"] * 2_001}
        assert "at most 2,000 changes" in (await daemon.ask("PATCH", f"/graphs/{graph}", 422, json=many))["error"]
        edit = {
            "add": [{"id": "b"}, {"request": "x"}],
            "connect": [{"source": "a"}],
            "disconnect": [{"source": "a"}],
            "more": 1,
        }
        error = (await daemon.ask("PATCH", f"/graphs/{graph}", 422, json=edit))["error"]
        for place in ("add[0].request", "add[1].id", "connect[0].target", "disconnect[0].target", "more"):
            assert place in error
        daemon.work.release("a")


async def test_cancelled_graph_stops_its_running_nodes_and_starts_no_others(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, [_node("a", "wait"), _node("b")], _edges("ab"))
        await _until_nodes(daemon, graph, a="running")
        cancelled = await daemon.ask("DELETE", f"/graphs/{graph}")
        assert cancelled["state"] == "cancelled"
        assert daemon.work.cancelled == ["wait"]
        assert daemon.work.begun == ["wait"]


async def test_node_can_be_cancelled_and_retried(tmp_path: Path) -> None:
    name = "a/1 ?\r\n\0"
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, [_node(name, "wait"), _node("b", "echo")])
        await _until_nodes(daemon, graph, **{name: "running"})
        place = f"/graphs/{graph}/nodes/{quote(name, safe='')}"
        await daemon.ask("POST", f"{place}/cancel")
        ended = await _until(daemon, graph, "partially failed")
        assert _states(ended) == {name: "cancelled", "b": "completed"}
        daemon.work.finish.set()
        await daemon.ask("POST", f"{place}/retry", 202)
        assert _states(await _until(daemon, graph, "completed")) == {name: "completed", "b": "completed"}
        assert "can be retried" in (await daemon.ask("POST", f"{place}/retry", 409))["error"]
        missing = await daemon.ask("POST", f"/graphs/{graph}/nodes/z/retry", 404)
        assert "there is no node 'z'" in missing["error"]


async def test_graphs_are_listed_by_pages_and_state_and_shown_as_files_of_both_forms(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        given = [await _submit(daemon, [_node("a", "echo")]) for _ in range(3)]
        for graph in given:
            await _until(daemon, graph, "completed")
        page = await daemon.ask("GET", "/graphs", params={"limit": 2})
        assert [graph["id"] for graph in page["graphs"]] == [given[2], given[1]]
        rest = await daemon.ask("GET", "/graphs", params={"before": page["before"], "state": "completed"})
        assert [graph["id"] for graph in rest["graphs"]] == [given[0]]
        ours = await daemon.ask("GET", f"/graphs/{given[0]}", params={"format": "ours"})
        assert ours["results"]["a"]["result"] == {"device": "d1", "echo": ""}
        original = await daemon.ask("GET", f"/graphs/{given[0]}", params={"format": "original"})
        assert list(original["tasks"]) == ["a"]
        await daemon.ask("POST", "/graphs", 202, json=original)
        for path, word in (("/graphs/none", "no graph"), ("/graphs?before=none", "no graph")):
            assert word in (await daemon.ask("GET", path, 404))["error"]
        for query in ("state=done", "limit=0", "more=1"):
            await daemon.ask("GET", f"/graphs?{query}", 400)
        await daemon.ask("GET", f"/graphs/{given[0]}?format=xml", 400)


async def test_full_queue_refuses_graphs_but_those_that_were_accepted(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", settings="max_queued = 1\n") as daemon:
        await daemon.wait_state(await daemon.submit("hold a"), "running")
        key = {"Idempotency-Key": "key"}
        accepted = await daemon.ask("POST", "/graphs", 202, json={"nodes": [_node("a")]}, headers=key)
        again = await daemon.ask("POST", "/graphs", 200, json={"nodes": [_node("a")]}, headers=key)
        assert again["id"] == accepted["id"]
        await daemon.ask("POST", "/graphs", 409, json={"nodes": [_node("b")]}, headers=key)
        other = {"Idempotency-Key": "other"}
        refused = await daemon.ask("POST", "/graphs", 503, json={"nodes": [_node("a")]}, headers=other)
        assert "the queue is full" in refused["error"]
        await daemon.ask("DELETE", f"/graphs/{accepted['id']}")
        await daemon.submit("echo")
        refused = await daemon.ask("POST", "/graphs", 503, json={"nodes": [_node("a")]})
        assert "the queue is full" in refused["error"]
        # What adds no task is possible, and cancelling is.
        assert (await daemon.ask("PATCH", f"/graphs/{accepted['id']}", json={}))["version"] == 0
        adding = await daemon.ask("PATCH", f"/graphs/{accepted['id']}", 503, json={"add": [_node("b")]})
        assert "the queue is full" in adding["error"]
        retrying = await daemon.ask("POST", f"/graphs/{accepted['id']}/nodes/a/retry", 503)
        assert "the queue is full" in retrying["error"]
        too_many = await daemon.ask("POST", "/graphs", 413, json={"nodes": [_node("a"), _node("b")]})
        assert "the graph begins with 2 tasks, and at most 1 may be queued" in too_many["error"]
        daemon.work.release("a")
