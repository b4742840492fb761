"""Tasks that run again by themselves: each attempt is a task of its own, and a graph of one node links them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]


async def _submit(daemon: RunningDaemon, request: str, **more: JSON) -> dict[str, Any]:
    return await daemon.ask("POST", "/tasks", 202, json={"request": request, "device": "d1", **more})


async def _until(daemon: RunningDaemon, graph: str, state: str) -> dict[str, Any]:
    while True:
        found = await daemon.ask("GET", f"/graphs/{graph}")
        if found["state"] == state:
            return found
        await trio.sleep(0.01)


async def _attempts(daemon: RunningDaemon, graph: str) -> list[dict[str, Any]]:
    """The attempts of a task, the first one first."""
    listed = await daemon.ask("GET", f"/tasks?graph={graph}")
    return list(reversed(listed["tasks"]))


async def test_each_attempt_is_a_task_that_names_the_one_it_repeats(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "fail", retries=2, backoff=0, priority=3, timeout=60)
        ended = await _until(daemon, task["graph"], "failed")
        first, second, third = await _attempts(daemon, task["graph"])
        assert daemon.work.begun == ["fail"] * 3
        assert (first["id"], second["retry_of"], third["retry_of"]) == (task["id"], first["id"], second["id"])
        assert {attempt["state"] for attempt in (first, second, third)} == {"failed"}
        assert {(attempt["priority"], attempt["timeout"]) for attempt in (first, second, third)} == {(3, 60.0)}
        assert ended["graph"]["results"]["task"]["task_id"] == third["id"]
        assert (ended["id"], ended["name"]) == (task["id"], "fail")


async def test_task_that_completes_has_no_further_attempt(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "echo once", retries=5)
        await _until(daemon, task["id"], "completed")
        assert daemon.work.begun == ["echo once"]


async def test_task_without_a_policy_belongs_to_no_graph(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "echo", retries=0)
        assert (task["graph"], task["node"]) == (None, None)
        assert (await daemon.ask("GET", "/graphs"))["graphs"] == []


async def test_task_that_waits_for_its_next_attempt_is_cancelled_through_its_graph(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "fail", retries=9, backoff=300)
        assert (await daemon.ask("GET", f"/tasks/{task['id']}?wait=60"))["state"] == "failed"
        assert (await daemon.ask("DELETE", f"/graphs/{task['id']}"))["state"] == "cancelled"
        assert len(await _attempts(daemon, task["id"])) == 1


async def test_cancelled_attempt_is_the_last_one(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "wait", retries=9, backoff=0)
        await daemon.wait_state(task["id"], "running")
        assert (await daemon.ask("DELETE", f"/tasks/{task['id']}"))["state"] == "cancelled"
        await _until(daemon, task["id"], "failed")
        assert len(await _attempts(daemon, task["id"])) == 1


@pytest.mark.parametrize(("retry_lost", "attempts"), [(None, 1), (False, 1), (True, 2)])
async def test_lost_attempt_is_repeated_only_if_that_is_asked_for(
    tmp_path: Path, retry_lost: bool | None, attempts: int
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "hold a", retries=1, backoff=0, retry_lost=retry_lost)
        await daemon.wait_state(task["id"], "running")
        await daemon.kill()
    async with open_daemon(tmp_path, "d1") as daemon:
        daemon.work.release("a")
        await _until(daemon, task["id"], "completed" if retry_lost else "failed")
        first, *others = await _attempts(daemon, task["id"])
        assert first["state"] == "lost"
        assert [other["state"] for other in others] == ["completed"] * (attempts - 1)


async def test_same_key_returns_the_first_attempt_and_another_policy_with_it_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        asked: dict[str, JSON] = {"request": "fail", "idempotency_key": "key", "retries": 1, "backoff": 0}
        task = await daemon.ask("POST", "/tasks", 202, json=asked)
        await _until(daemon, task["id"], "failed")
        again = await daemon.ask("POST", "/tasks", 200, json=asked)
        assert (again["id"], again["state"]) == (task["id"], "failed")
        for other in ({"retries": 2}, {"backoff": 1}, {"retry_lost": True}, {"retries": 0, "backoff": None}):
            refused = await daemon.ask("POST", "/tasks", 409, json={**asked, **other})
            assert "use another key" in refused["error"]


async def test_task_that_a_client_retries_keeps_its_policy(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "fail", retries=1, backoff=0)
        await _until(daemon, task["id"], "failed")
        again = await daemon.ask("POST", f"/tasks/{task['id']}/retry", 202)
        await _until(daemon, again["id"], "failed")
        assert [attempt["retry_of"] for attempt in await _attempts(daemon, again["id"])] == [task["id"], again["id"]]


async def test_attempt_of_a_node_that_a_client_retries_names_the_one_before_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await _submit(daemon, "fail", retries=1, backoff=0)
        await _until(daemon, task["id"], "failed")
        await daemon.ask("POST", f"/graphs/{task['id']}/nodes/task/retry", 202)
        await _until(daemon, task["id"], "failed")
        first, second, third = await _attempts(daemon, task["id"])
        assert (second["retry_of"], third["retry_of"]) == (first["id"], second["id"])


async def test_task_of_a_node_that_an_edit_has_removed_is_retried_without_a_policy(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_state((await _submit(daemon, "hold a"))["id"], "running")
        task = await _submit(daemon, "echo", retries=1, idempotency_key="key")
        await daemon.ask("PATCH", f"/graphs/{task['id']}", json={"remove": ["task"]})
        # What was accepted is what counts.
        asked = {"request": "echo", "device": "d1", "retries": 1, "idempotency_key": "key"}
        assert (await daemon.ask("POST", "/tasks", 200, json=asked))["id"] == task["id"]
        daemon.work.release("a")
        assert (await daemon.ask("GET", f"/tasks/{task['id']}"))["state"] == "cancelled"
        again = await daemon.ask("POST", f"/tasks/{task['id']}/retry", 202)
        assert again["graph"] is None


async def test_tasks_of_a_graph_and_of_its_nodes_are_listed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _submit(daemon, "echo other")
        nodes: list[JSON] = [{"id": name, "request": f"echo {name}", "device": "d1"} for name in "ab"]
        graph = (await daemon.ask("POST", "/graphs", 202, json={"nodes": nodes}))["id"]
        assert {attempt["node"] for attempt in await _attempts(daemon, graph)} == {"a", "b"}
        [only] = (await daemon.ask("GET", f"/tasks?graph={graph}&node=b"))["tasks"]
        assert only["request"] == "echo b"
