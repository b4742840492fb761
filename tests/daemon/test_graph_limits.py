"""The limits of the daemon's graphs, when they are submitted and when they are edited."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon import graph_limits
from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


def _node(node_id: str, request: str = "echo", device: str = "d1") -> JSON:
    return {"id": node_id, "request": request, "device": device}


def _edge(source: str, target: str) -> JSON:
    return {"source": source, "target": target}


async def _submit(daemon: RunningDaemon, document: JSON) -> str:
    return str((await daemon.ask("POST", "/graphs", 202, json=document))["id"])


async def test_graph_that_would_delay_others_for_long_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        names = [str(number) for number in range(202)]
        pairs: list[JSON] = [_edge(*pair) for pair in combinations(names, 2)]
        document: JSON = {"nodes": [_node(name) for name in names], "edges": pairs}
        assert "use several graphs" in (await daemon.ask("POST", "/graphs", 413, json=document))["error"]
        many: JSON = {"nodes": [_node(str(number)) for number in range(10_001)]}
        assert "at most 10,000 nodes" in (await daemon.ask("POST", "/graphs", 422, json=many))["error"]


@pytest.mark.parametrize(("name", "limit"), [("MAX_EDGES", 1), ("MAX_SIZE", 1_000)])
async def test_edits_grow_a_graph_up_to_the_limits_alone(
    name: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_limits, name, limit)
    async with open_daemon(tmp_path, "d1") as daemon:
        graph = await _submit(daemon, {"nodes": [_node("a", "hold a"), _node("b")], "edges": [_edge("a", "b")]})
        edit = {"add": [_node("c", "x" * 1_000)], "connect": [_edge("b", "c")]}
        assert "use several graphs" in (await daemon.ask("PATCH", f"/graphs/{graph}", 413, json=edit))["error"]
        assert (await daemon.ask("GET", f"/graphs/{graph}"))["version"] == 0
        daemon.work.release("a")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("capabilities", [f"c{number}" for number in range(101)], "at most 100 capabilities"),
        (
            "capabilities",
            [str(number) * 802 for number in range(5)],
            "at most 4,000 characters in all of them together",
        ),
        ("capabilities", ["c" * 901], "at most 900 characters in each of them"),
        ("os", "x" * 901, "at most 900 characters"),
        ("device", "x" * 901, "at most 900 characters"),
    ],
)
async def test_node_that_requires_too_much_of_its_device_is_refused_with_its_place(
    name: str, value: JSON, problem: str, tmp_path: Path
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        bad: JSON = {"id": "b", "request": "echo", name: value}
        refused = await daemon.ask("POST", "/graphs", 422, json={"nodes": [_node("a"), bad]})
        assert refused["problems"] == [f"nodes[1].{name}: expected {problem}"]
        graph = await _submit(daemon, {"nodes": [_node("a", "hold a"), _node("b")], "edges": [_edge("a", "b")]})
        for key in ("add", "replace"):
            refused = await daemon.ask("PATCH", f"/graphs/{graph}", 422, json={key: [bad]})
            assert refused["problems"] == [f"{key}[0].{name}: expected {problem}"]
        daemon.work.release("a")


async def test_task_of_the_original_form_that_requires_too_much_is_refused_with_its_place(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task: dict[str, JSON] = {"description": "echo", "target_device_id": "x" * 901}
        by_id: JSON = {"tasks": {"a": {"description": "echo"}, "b": task}, "dependencies": {}}
        refused = await daemon.ask("POST", "/graphs", 422, json=by_id)
        assert refused["problems"] == ["tasks.b.target_device_id: expected at most 900 characters"]
        in_a_list: JSON = {"tasks": [{"task_id": "b", **task}], "dependencies": []}
        refused = await daemon.ask("POST", "/graphs", 422, json=in_a_list)
        assert refused["problems"] == ["tasks[0].target_device_id: expected at most 900 characters"]


async def test_number_of_different_requirements_of_a_graph_is_limited_over_all_its_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_limits, "MAX_REQUIREMENTS", 2)
    monkeypatch.setattr(graph_limits, "MAX_DEVICES", 3)

    def any_with(node_id: str, *capabilities: str) -> JSON:
        return {"id": node_id, "request": "echo", "os": "linux", "capabilities": list(capabilities)}

    async with open_daemon(tmp_path, "d1") as daemon:
        many = [any_with(name, name) for name in "abc"]
        refused = await daemon.ask("POST", "/graphs", 422, json={"nodes": many})
        assert refused["problems"] == [refused["error"]]
        assert refused["error"].startswith("nodes: the nodes of a graph require at most 2 different combinations")
        devices = [_node(name, device=name) for name in "abcd"]
        refused = await daemon.ask("POST", "/graphs", 422, json={"nodes": devices})
        assert refused["error"].startswith("nodes: the nodes of a graph require at most 3 different devices")
        nodes = [
            _node("a", "hold a"),
            _node("b", device="b"),
            _node("c", device="c"),
            any_with("d", "x"),
            any_with("e"),
        ]
        graph = await _submit(daemon, {"nodes": nodes, "edges": [_edge("a", name) for name in "bcde"]})

        async def edit(status: int, **edit: JSON) -> str:
            return str((await daemon.ask("PATCH", f"/graphs/{graph}", status, json=edit)).get("error"))

        another = _node("f", device="f")
        assert "add: the nodes" in await edit(422, add=[another])
        # The new device takes the place of another one.
        await edit(200, add=[another], replace=[_node("b", device="f")], connect=[_edge("a", "f")])
        assert "replace: the nodes" in await edit(422, replace=[_node("f", device="g")])
        assert "replace: the nodes" in await edit(422, replace=[any_with("c", "y")])
        await edit(200, remove=["d"])
        await edit(200, replace=[any_with("c", "y")])
        daemon.work.release("a")
