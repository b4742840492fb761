"""The daemon's tasks over HTTP, from the request to the result."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import galaxy_trio.daemon.web.bodies
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.daemon.web.bodies import BadRequest, parse_task
from tests.constellation.support.fleet import Work
from tests.daemon.support.daemon import open_daemon
from tests.support.passes import counting_passes
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.server import ServerTask

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]


async def test_accepted_task_runs_and_has_its_result(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        response = await daemon.client.post("/tasks", json={"request": "echo hello", "device": "d1"})
        accepted = response.json()
        assert (response.status_code, accepted["state"]) == (202, "queued")
        assert response.headers["location"] == f"/tasks/{accepted['id']}"
        task = await daemon.ended_task(accepted["id"])
    assert (task["state"], task["device"], task["error"]) == ("completed", "d1", None)
    assert task["result"] == {"device": "d1", "echo": "hello"}
    assert task["created"] <= task["started"] <= task["ended"]


async def test_task_for_any_device_runs_on_one_that_fits(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.fleet.start_device("d2", platform="windows", features=["excel"])
        daemon.devices("d1", "d2")
        await daemon.reload()
        await daemon.wait_connected(2)
        task_id = await daemon.submit("echo sum", None, os="windows", capabilities=["excel"])
        assert (await daemon.ended_task(task_id))["device"] == "d2"


@pytest.mark.parametrize("name", ["macOS", "mac", "Darwin"])
async def test_task_for_a_common_name_of_a_system_runs_on_a_device_that_reports_aips(name: str, tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.fleet.start_device("d2", platform="darwin")
        daemon.devices("d1", "d2")
        await daemon.reload()
        await daemon.wait_connected(2)
        task_id = await daemon.submit("echo sum", None, os=name)
        assert (await daemon.ended_task(task_id))["device"] == "d2"


@pytest.mark.parametrize(
    ("body", "sentences"),
    [
        ("", ["the body cannot be read: not JSON"]),
        ("[]", ["the body must be an object such as"]),
        ('{"request": NaN}', ["NaN is not JSON"]),
        ('{"request": "a", "request": "b"}', ["the key 'request' is given twice"]),
        ('{"request": "a", "x": [{}, {"y": {"k": 1, "k": 2}}]}', ["the key 'k' is given twice in x[1].y"]),
        (b'{"request": "\xff"}', ["the body cannot be read"]),
        ("[" * 100_000, ["nested too deep"]),
        ('{"request": ""}', ["request: expected a text"]),
        ('{"request": "\\ud800"}', ["a lone surrogate in a string"]),
        ('{"request": 5, "device": 5, "timeout": 0}', ["request: expected", "device: expected", "timeout: expected"]),
        ('{"request": "x", "devise": "d1"}', ["devise: unknown key; did you mean 'device'?"]),
        ('{"request": "x", "zzz": 1}', ["zzz: unknown key; known are request, device, os, "]),
        (
            '{"request": "x", "device": "d1", "os": "linux"}',
            ["device: give a device, or the properties that one must have"],
        ),
        ('{"request": "x", "capabilities": "excel"}', ["capabilities: expected a list of at most 100 texts"]),
        ('{"request": "x", "capabilities": ["\\ud800"]}', ["a lone surrogate in a string"]),
        ('{"request": "x", "capabilities": [""]}', ["capabilities[0]: expected a text of 1 to 900"]),
        ('{"request": "x", "capabilities": null, "timeout": null}', ["capabilities: expected", "timeout: expected"]),
        ('{"device": null}', ["request: is missing"]),
        ('{"request": "x", "timeout": true}', ["timeout: expected a number of seconds"]),
        ('{"request": "x", "timeout": 1e99}', ["timeout: expected a number of seconds"]),
        ('{"request": "x", "priority": 101}', ["priority: expected a whole number from -100 to 100"]),
        ('{"request": "x", "priority": -101}', ["priority: expected a whole number from -100 to 100"]),
        ('{"request": "x", "priority": 0.5}', ["priority: expected a whole number from -100 to 100"]),
        ('{"request": "x", "retries": -1}', ["retries: expected a whole number from 0 to 1,000"]),
        ('{"request": "x", "retries": 1001}', ["retries: expected a whole number from 0 to 1,000"]),
        ('{"request": "x", "retries": 1.5}', ["retries: expected a whole number from 0 to 1,000"]),
        (
            '{"request": "x", "retries": 1, "backoff": -1}',
            ["backoff: expected a number of seconds of 0 or more, of at most 300"],
        ),
        (
            '{"request": "x", "retries": 1, "backoff": 301, "retry_lost": 1}',
            ["backoff: expected", "retry_lost: expected true or"],
        ),
        ('{"request": "x", "backoff": 1, "retry_lost": true}', ["backoff: needs retries", "retry_lost: needs retries"]),
        (json.dumps({"request": "x", "idempotency_key": "k" * 901}), ["idempotency_key: expected a text of 1 to 900"]),
    ],
)
async def test_all_problems_of_a_request_are_reported_together(
    tmp_path: Path, body: str | bytes, sentences: list[str]
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("POST", "/tasks", 400, content=body, headers={"Content-Type": "application/json"})
        assert all(sentence in answer["error"] for sentence in sentences), answer
        assert (await daemon.ask("GET", "/tasks"))["tasks"] == []


@pytest.mark.parametrize(
    "body",
    [
        "{" + ",".join(f'"{number}": 1' for number in range(70_000)) + "}",
        '{"request": "x", "capabilities": [' + ",".join("1" * 100) + "]}",
    ],
)
async def test_first_20_problems_of_a_request_are_reported(body: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await parse_task(body.encode())
    problems = str(caught.value).split("; ")
    assert sum(" unknown key" in problem or "capabilities[" in problem for problem in problems) in (19, 20)
    assert len(str(caught.value)) < 4096


async def test_number_of_capabilities_is_limited() -> None:
    most = ["c"] * 100
    asked = await parse_task(json.dumps({"request": "x", "capabilities": most}).encode())
    assert asked.capabilities == tuple(most)
    with pytest.raises(BadRequest, match="expected a list of at most 100 texts"):
        await parse_task(json.dumps({"request": "x", "capabilities": [*most, "c"]}).encode())


async def test_request_may_begin_with_a_byte_order_mark() -> None:
    assert (await parse_task('\ufeff{"request": "x"}'.encode())).request == "x"


async def test_other_tasks_run_while_a_request_with_many_values_is_parsed() -> None:
    async with counting_passes() as passes:
        with pytest.raises(BadRequest, match="unknown key"):
            await parse_task(b'{"request": "x", "lists": [' + b"[]," * 100_000 + b"[]]}")
        assert passes.count > 20


async def test_error_about_an_unknown_task_lists_similar_ids(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = (await daemon.ask("POST", "/tasks", 202, json={"request": "echo x"}))["id"]
        for unknown in (task[:8], task[:-1] + "x"):
            similar = {"error": f"there is no task {unknown!r}; did you mean {task!r}?"}
            assert await daemon.ask("GET", f"/tasks/{unknown}", 404) == similar
            assert await daemon.ask("DELETE", f"/tasks/{unknown}", 404) == similar
            assert await daemon.ask("POST", f"/tasks/{unknown}/retry", 404) == similar


async def test_task_for_an_unknown_device_is_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("POST", "/tasks", 404, json={"request": "x", "device": "fridge"})
    assert answer == {"error": "there is no device 'fridge'; known: 'd1'"}


async def test_same_idempotency_key_returns_the_same_task_and_refuses_a_different_request(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        body = {"request": "echo x", "device": "d1", "idempotency_key": "k1"}
        first = await daemon.submit("echo x", idempotency_key="k1")
        again = await daemon.ask("POST", "/tasks", 200, json=body)
        other = await daemon.ask("POST", "/tasks", 409, json={**body, "request": "echo y"})
        await daemon.ended_task(first)
        late = await daemon.ask("POST", "/tasks", 200, json=body)
        assert (again["id"], late["id"], late["state"]) == (first, first, "completed")
        assert "k1" in other["error"]
        assert daemon.work.begun == ["echo x"]


async def test_tasks_of_a_higher_priority_begin_first_and_a_retry_keeps_it(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        low = await daemon.submit("echo low", priority=-100)
        usual = await daemon.submit("echo usual")
        high = await daemon.submit("echo high", priority=100.0)
        assert [task["priority"] for task in (await daemon.ask("GET", "/tasks"))["tasks"]] == [100, 0, -100, 0]
        daemon.work.release("a")
        for task in (low, usual, high):
            await daemon.ended_task(task)
        assert daemon.work.begun == ["hold a", "echo high", "echo usual", "echo low"]
        again = await daemon.ask("POST", f"/tasks/{high}/retry", 202)
        assert (await daemon.ended_task(again["id"]))["priority"] == 100


async def test_tasks_beyond_max_queued_are_refused_and_the_queued_ones_run(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", settings="max_queued = 2") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        queued = [await daemon.submit("echo b"), await daemon.submit("echo c")]
        answer = await daemon.ask("POST", "/tasks", 503, json={"request": "echo d", "device": "d1"})
        assert answer == {
            "error": "the queue is full, with 2 of at most 2 tasks, and this one was refused: retry later"
        }
        daemon.work.release("a")
        assert [(await daemon.ended_task(task))["state"] for task in queued] == ["completed", "completed"]
        assert daemon.work.begun == ["hold a", "echo b", "echo c"]


async def test_failed_task_has_the_reason(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.ended_task(await daemon.submit("fail no paper"))
    assert task["state"] == "failed"
    assert "no paper" in task["error"]


async def test_task_that_exceeds_its_timeout_fails_and_is_stopped(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.ended_task(await daemon.submit("wait", timeout=0.1))
        assert task["state"] == "failed"
        assert "0.1 s" in task["error"]
        await until(lambda: daemon.work.cancelled == daemon.work.begun)


async def test_task_whose_connection_is_lost_becomes_lost_and_reruns_only_on_request(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        await daemon.wait_state(task_id, "running")
        await until(lambda: bool(daemon.work.begun))
        await daemon.fleet.kill_server()
        assert (await daemon.ended_task(task_id))["state"] == "lost"
        daemon.work.release("a")
        await daemon.fleet.start_server()
        retry = await daemon.ask("POST", f"/tasks/{task_id}/retry", 202)
        assert (retry["retry_of"], retry["request"]) == (task_id, "hold a")
        assert (await daemon.ended_task(retry["id"]))["state"] == "completed"
        assert await daemon.state(task_id) == "lost"
        assert daemon.work.begun == ["hold a", "hold a"]


async def test_only_finished_tasks_can_be_retried(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        answer = await daemon.ask("POST", f"/tasks/{task_id}/retry", 409)
        assert "only a task that has ended can be retried" in answer["error"]
        await daemon.ask("POST", "/tasks/nothing/retry", 404)
        daemon.work.release("a")
        await daemon.ended_task(task_id)


async def test_cancelling_a_running_task_stops_it_before_the_response(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("wait")
        await until(lambda: bool(daemon.work.begun))
        task = await daemon.ask("DELETE", f"/tasks/{task_id}")
        assert (task["state"], task["error"]) == ("cancelled", None)
        await until(lambda: bool(daemon.work.cancelled))
        assert (await daemon.ended_task(await daemon.submit("echo next")))["state"] == "completed"


async def test_task_cancelled_while_queued_never_begins(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        queued = await daemon.submit("echo b")
        assert (await daemon.ask("DELETE", f"/tasks/{queued}"))["state"] == "cancelled"
        daemon.work.release("a")
        await daemon.ended_task(held)
        assert (await daemon.ask("DELETE", f"/tasks/{held}"))["state"] == "completed"
        await daemon.ask("DELETE", "/tasks/nothing", 404)
        assert daemon.work.begun == ["hold a"]


async def test_wait_ends_with_the_task_or_with_its_timeout(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        assert (await daemon.ask("GET", f"/tasks/{task_id}", params={"wait": 0.05}))["state"] in ("queued", "running")
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def wait() -> None:
                answers.append((await daemon.ask("GET", f"/tasks/{task_id}", params={"wait": SECONDS}))["state"])

            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            daemon.work.release("a")
        assert answers == ["completed", "completed"]
        assert "wait: expected" in (await daemon.ask("GET", f"/tasks/{task_id}", 400, params={"wait": "x"}))["error"]
        await daemon.ask("GET", f"/tasks/{task_id}", 400, params={"wait": "nan"})
        await daemon.ask("GET", "/tasks/nothing", 404)


class _Results(Work):
    async def __call__(self, task: ServerTask) -> object:
        kind, size = task.request.split()
        if kind == "long":
            return "é" * int(size)
        result: list[object] = []
        for _ in range(int(size)):
            result = [result]
        return result


async def test_small_result_is_part_of_its_task_and_a_large_one_is_streamed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=_Results()) as daemon:
        small = await daemon.ended_task(await daemon.submit("long 10"))
        large = await daemon.ended_task(await daemon.submit("long 300000"))
        assert small["result"] == "é" * 10
        assert "result" not in large
        assert large["result_size"] > galaxy_trio.daemon.web.bodies.INLINE
        response = await daemon.client.get(large["result_url"])
        assert response.json() == "é" * 300_000
        assert int(response.headers["content-length"]) == large["result_size"]


async def test_result_at_the_limit_of_nesting_is_part_of_its_task(tmp_path: Path) -> None:
    # The result is a list around so many lists, and the message around it is the 500th level.
    async with open_daemon(tmp_path, "d1", work=_Results()) as daemon:
        for depth, state in ((498, "completed"), (499, "failed")):
            task_id = await daemon.submit(f"nested {depth}")
            response = await daemon.client.get(f"/tasks/{task_id}", params={"wait": SECONDS})
            assert response.status_code == 200, response.text
            assert f'"state":"{state}"' in response.text
            assert ("[" * depth in response.text) == (state == "completed")


async def test_task_that_is_deleted_while_it_is_read_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("echo a")
        await daemon.ended_task(task_id)
        monkeypatch.setattr(Store, "read_result", _deleted)
        assert await daemon.ask("GET", f"/tasks/{task_id}", 404) == {"error": f"there is no task {task_id!r}"}


async def _deleted(_store: Store, _task_id: str) -> AsyncGenerator[bytes]:
    await trio.lowlevel.checkpoint()
    pieces: list[bytes] = []
    for piece in pieces:
        yield piece


async def test_request_for_a_missing_result_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        answer = await daemon.ask("GET", f"/tasks/{task_id}/result", 409)
        assert re.search("has no result yet: it is (queued|running)", answer["error"])
        await daemon.ask("DELETE", f"/tasks/{task_id}")
        answer = await daemon.ask("GET", f"/tasks/{task_id}/result", 404)
        assert "has no result: it was cancelled" in answer["error"]


async def test_tasks_are_listed_newest_first_and_in_pages(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        tasks = [await daemon.submit(f"echo {number}", f"d{number % 2 + 1}") for number in range(5)]
        for task in tasks:
            await daemon.ended_task(task)
        first = await daemon.ask("GET", "/tasks", params={"limit": 3})
        second = await daemon.ask("GET", "/tasks", params={"limit": 3, "before": first["before"]})
        assert [task["id"] for task in first["tasks"] + second["tasks"]] == tasks[::-1]
        assert second["before"] is None
        on_d2 = await daemon.ask("GET", "/tasks", params={"device": "d2", "state": "completed"})
        assert [task["id"] for task in on_d2["tasks"]] == [tasks[3], tasks[1]]
        assert (await daemon.ask("GET", "/tasks", params={"state": "failed"}))["tasks"] == []
        await daemon.ask("GET", "/tasks", 404, params={"before": "nothing"})


@pytest.mark.parametrize("parameters", [{"state": "done"}, {"limit": "0"}, {"limit": "2.5"}, {"limit": "1001"}])
async def test_invalid_list_parameters_are_refused(tmp_path: Path, parameters: dict[str, str]) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("GET", "/tasks", 400, params=parameters)
        assert f"{next(iter(parameters))}: expected" in answer["error"]
