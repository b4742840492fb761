"""The daemon's tasks, from the request to the result."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import galaxy_trio.daemon.attempts
import galaxy_trio.daemon.task_queue
import galaxy_trio.daemon.web.bodies
from galaxy_trio.daemon.store.schema import StoreError
from galaxy_trio.daemon.store.store import Store
from tests.constellation.support.fleet import Work
from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.daemon


# ---- what is accepted


async def test_a_task_is_accepted_runs_and_gives_its_result(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        response = await daemon.client.post("/tasks", json={"request": "echo hello", "device": "d1"})
        accepted = response.json()
        assert (response.status_code, accepted["state"]) == (202, "queued")
        assert response.headers["location"] == f"/tasks/{accepted['id']}"
        task = await daemon.ended_task(accepted["id"])
    assert (task["state"], task["device"], task["error"]) == ("completed", "d1", None)
    assert task["result"] == {"device": "d1", "echo": "hello"}
    assert task["created"] <= task["started"] <= task["ended"]


async def test_a_task_for_any_device_runs_on_one_that_fits(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.fleet.start_device("d2", platform="windows", features=["excel"])
        daemon.devices("d1", "d2")
        await daemon.reload()
        await daemon.wait_connected(2)
        task_id = await daemon.submit("echo sum", None, os="windows", capabilities=["excel"])
        assert (await daemon.ended_task(task_id))["device"] == "d2"


@pytest.mark.parametrize(
    ("body", "sentences"),
    [
        ("", ["the body is not JSON"]),
        ("[]", ["the body must be an object such as"]),
        ('{"request": NaN}', ["NaN is not JSON"]),
        ("[" * 100_000, ["the body is not JSON"]),
        ('{"request": ""}', ["request: expected a text"]),
        ('{"request": "\\ud800"}', ["request: expected a text"]),
        ('{"request": 5, "device": 5, "timeout": 0}', ["request: expected", "device: expected", "timeout: expected"]),
        ('{"request": "x", "devise": "d1"}', ["devise: unknown key; did you mean 'device'?"]),
        ('{"request": "x", "zzz": 1}', ["zzz: unknown key; known are request, device, os, "]),
        (
            '{"request": "x", "device": "d1", "os": "linux"}',
            ["device: give a device, or the properties that one must have"],
        ),
        ('{"request": "x", "capabilities": "excel"}', ["capabilities: expected a list of texts"]),
        ('{"request": "x", "capabilities": ["\\ud800"]}', ["capabilities[0]: expected a text of 1 to 900"]),
        ('{"request": "x", "capabilities": null, "timeout": null}', ["capabilities: expected", "timeout: expected"]),
        ('{"device": null}', ["request: is missing"]),
        ('{"request": "x", "timeout": true}', ["timeout: expected a number of seconds"]),
        ('{"request": "x", "timeout": 1e99}', ["timeout: expected a number of seconds"]),
        (json.dumps({"request": "x", "idempotency_key": "k" * 901}), ["idempotency_key: expected a text of 1 to 900"]),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_all_at_once(
    tmp_path: Path, body: str, sentences: list[str]
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("POST", "/tasks", 400, content=body, headers={"Content-Type": "application/json"})
        assert all(sentence in answer["error"] for sentence in sentences), answer
        assert (await daemon.ask("GET", "/tasks"))["tasks"] == []


async def test_a_device_that_does_not_exist_is_told_at_once(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("POST", "/tasks", 404, json={"request": "x", "device": "fridge"})
    assert answer == {"error": "there is no device 'fridge'"}


async def test_the_same_idempotency_key_gives_the_same_task_and_never_another(tmp_path: Path) -> None:
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


async def test_more_tasks_than_may_wait_are_refused_and_those_that_wait_run(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", settings="max_queued = 2") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        waiting = [await daemon.submit("echo b"), await daemon.submit("echo c")]
        answer = await daemon.ask("POST", "/tasks", 503, json={"request": "echo d", "device": "d1"})
        assert answer == {"error": "2 tasks wait already: this one was not taken"}
        daemon.work.let_go("a")
        assert [(await daemon.ended_task(task))["state"] for task in waiting] == ["completed", "completed"]
        assert daemon.work.begun == ["hold a", "echo b", "echo c"]


# ---- how they end


async def test_a_task_that_fails_says_why(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.ended_task(await daemon.submit("fail no paper"))
    assert task["state"] == "failed"
    assert "no paper" in task["error"]


async def test_a_task_that_takes_too_long_fails_and_is_stopped(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.ended_task(await daemon.submit("wait", timeout=0.1))
        assert task["state"] == "failed"
        assert "0.1 s" in task["error"]
        await until(lambda: daemon.work.cancelled == daemon.work.begun)


async def test_a_task_whose_connection_breaks_is_lost_and_runs_again_only_when_told(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        await daemon.wait_state(task_id, "running")
        await until(lambda: bool(daemon.work.begun))
        await daemon.fleet.kill_server()
        assert (await daemon.ended_task(task_id))["state"] == "lost"
        daemon.work.let_go("a")
        await daemon.fleet.start_server()
        retry = await daemon.ask("POST", f"/tasks/{task_id}/retry", 202)
        assert (retry["retry_of"], retry["request"]) == (task_id, "hold a")
        assert (await daemon.ended_task(retry["id"]))["state"] == "completed"
        assert await daemon.state(task_id) == "lost"
        assert daemon.work.begun == ["hold a", "hold a"]


async def test_only_what_has_ended_can_be_retried(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        answer = await daemon.ask("POST", f"/tasks/{task_id}/retry", 409)
        assert "only one that has ended can be retried" in answer["error"]
        await daemon.ask("POST", "/tasks/nothing/retry", 404)
        daemon.work.let_go("a")
        await daemon.ended_task(task_id)


async def test_cancelling_a_task_that_runs_stops_it_and_then_says_so(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("wait")
        await until(lambda: bool(daemon.work.begun))
        task = await daemon.ask("DELETE", f"/tasks/{task_id}")
        assert (task["state"], task["error"]) == ("cancelled", None)
        await until(lambda: bool(daemon.work.cancelled))
        assert (await daemon.ended_task(await daemon.submit("echo next")))["state"] == "completed"


async def test_a_task_that_is_cancelled_while_it_waits_never_begins(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        waiting = await daemon.submit("echo b")
        assert (await daemon.ask("DELETE", f"/tasks/{waiting}"))["state"] == "cancelled"
        daemon.work.let_go("a")
        await daemon.ended_task(held)
        assert (await daemon.ask("DELETE", f"/tasks/{held}"))["state"] == "completed"
        await daemon.ask("DELETE", "/tasks/nothing", 404)
        assert daemon.work.begun == ["hold a"]


async def test_waiting_for_a_task_ends_with_the_task_or_with_the_time(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        assert (await daemon.ask("GET", f"/tasks/{task_id}", params={"wait": 0.05}))["state"] in ("queued", "running")
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def wait() -> None:
                answers.append((await daemon.ask("GET", f"/tasks/{task_id}", params={"wait": SECONDS}))["state"])

            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.sleep(0.05)
            daemon.work.let_go("a")
        assert answers == ["completed", "completed"]
        assert "wait: expected" in (await daemon.ask("GET", f"/tasks/{task_id}", 400, params={"wait": "x"}))["error"]
        await daemon.ask("GET", f"/tasks/{task_id}", 400, params={"wait": "nan"})
        await daemon.ask("GET", "/tasks/nothing", 404)


class _Large(Work):
    async def __call__(self, task: ServerTask) -> object:
        return "é" * int(task.request)


async def test_a_small_result_is_part_of_its_task_and_a_large_one_is_streamed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=_Large()) as daemon:
        small = await daemon.ended_task(await daemon.submit("10"))
        large = await daemon.ended_task(await daemon.submit("300000"))
        assert small["result"] == "é" * 10
        assert "result" not in large
        assert large["result_size"] > galaxy_trio.daemon.web.bodies.INLINE
        response = await daemon.client.get(large["result_url"])
        assert response.json() == "é" * 300_000
        assert int(response.headers["content-length"]) == large["result_size"]


async def test_a_task_without_a_result_has_none_to_be_had(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        task_id = await daemon.submit("hold a")
        answer = await daemon.ask("GET", f"/tasks/{task_id}/result", 409)
        assert re.search("has no result yet: it is (queued|running)", answer["error"])
        await daemon.ask("DELETE", f"/tasks/{task_id}")
        answer = await daemon.ask("GET", f"/tasks/{task_id}/result", 404)
        assert "has no result: it was cancelled" in answer["error"]


# ---- lists


async def test_tasks_are_listed_the_newest_first_page_by_page(tmp_path: Path) -> None:
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
async def test_a_list_that_cannot_be_is_refused(tmp_path: Path, parameters: dict[str, str]) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        answer = await daemon.ask("GET", "/tasks", 400, params=parameters)
        assert f"{next(iter(parameters))}: expected" in answer["error"]


# ---- another daemon after this one


async def test_what_waits_when_the_daemon_stops_runs_with_the_next_one_in_order(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        waiting = [await daemon.submit(f"echo {number}") for number in range(20)]
        daemon.work.let_go("a")
        daemon.stop.set()
    done = len(daemon.work.begun)
    async with open_daemon(tmp_path, "d1") as daemon:
        assert [(await daemon.ended_task(task))["state"] for task in waiting] == ["completed"] * 20
        assert daemon.work.begun == [f"echo {number}" for number in range(done - 1, 20)]
        assert (await daemon.ended_task(held))["state"] == "completed"


async def test_what_runs_when_the_daemon_stops_may_end_and_is_lost_after_that(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        patient, stuck = await daemon.submit("hold a"), await daemon.submit("wait", "d2")
        await daemon.wait_state(patient, "running")
        await daemon.wait_state(stuck, "running")
        daemon.stop.set()
        await daemon.wait_stopping()
        assert (
            "is being stopped"
            in (await daemon.ask("POST", "/tasks", 503, json={"request": "echo late", "device": "d1"}))["error"]
        )
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the daemon is being stopped"
        daemon.work.let_go("a")
    assert daemon.work.cancelled == ["wait"]
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        assert (await daemon.ended_task(patient))["state"] == "completed"
        lost = await daemon.ended_task(stuck)
        assert (lost["state"], daemon.work.begun) == ("lost", [])
        assert "it may have run" in lost["error"]


async def test_what_ran_when_the_daemon_was_killed_is_lost_and_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write_nothing(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    async with open_daemon(tmp_path, "d1") as daemon:
        running = await daemon.submit("wait")
        waiting = await daemon.submit("echo b")
        await daemon.wait_state(running, "running")
        # It is gone before it could write anything more.
        monkeypatch.setattr(Store, "finish", write_nothing)
        monkeypatch.setattr(galaxy_trio.daemon.attempts, "_WRITE_TIMEOUT", 0.01)
        daemon.scope.cancel()
    monkeypatch.undo()
    async with open_daemon(tmp_path, "d1") as daemon:
        lost = await daemon.ended_task(running)
        assert (lost["state"], (await daemon.ended_task(waiting))["state"]) == ("lost", "completed")
        assert "the daemon ended while the task ran" in lost["error"]
        assert daemon.work.begun == ["echo b"]


async def test_who_waits_for_a_task_before_it_becomes_lost_at_the_daemons_start_is_answered_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write_nothing(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    recover, asked = Store.recover, trio.Event()

    async def recover_late(store: Store) -> int:
        await asked.wait()
        # What was asked has been read, and waits.
        await trio.testing.wait_all_tasks_blocked(0.05)
        return await recover(store)

    async with open_daemon(tmp_path, "d1") as daemon:
        running = await daemon.submit("wait")
        await daemon.wait_state(running, "running")
        monkeypatch.setattr(Store, "finish", write_nothing)
        monkeypatch.setattr(galaxy_trio.daemon.attempts, "_WRITE_TIMEOUT", 0.01)
        daemon.scope.cancel()
    monkeypatch.undo()
    monkeypatch.setattr(Store, "recover", recover_late)
    async with open_daemon(tmp_path, "d1") as daemon, trio.open_nursery() as nursery:

        async def wait() -> None:
            task = await daemon.ask("GET", f"/tasks/{running}", params={"wait": 300})
            assert task["state"] == "lost"

        nursery.start_soon(wait)
        asked.set()


# ---- a disk that fails


class _Disk:
    """Methods of the store that fail while they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.full = False
        self.failed = 0
        for name in names:
            monkeypatch.setattr(Store, name, self._failing(getattr(Store, name)))
        monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)

    def _failing(self, method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def fail(*arguments: object, **keywords: object) -> object:
            if self.full:
                self.failed += 1
                await trio.lowlevel.checkpoint()
                raise StoreError("the database fails: the disk is full: make room")
            return await method(*arguments, **keywords)

        return fail


async def test_on_a_full_disk_nothing_is_accepted_and_what_was_accepted_waits_and_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _Disk(monkeypatch, "add", "mark_running")
    async with open_daemon(tmp_path, "d1") as daemon:
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        waiting = await daemon.submit("echo b")
        disk.full = True
        body: dict[str, JSON] = {"request": "echo c", "device": "d1"}
        assert "the disk is full" in (await daemon.ask("POST", "/tasks", 507, json=body))["error"]
        daemon.work.let_go("a")
        await until(lambda: disk.failed >= 4)
        assert await daemon.state(waiting) == "queued"
        disk.full = False
        assert (await daemon.ended_task(waiting))["state"] == "completed"
    assert daemon.work.begun == ["hold a", "echo b"]


async def test_how_a_task_ended_is_written_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _Disk(monkeypatch, "finish")
    async with open_daemon(tmp_path, "d1") as daemon:
        disk.full = True
        task_id = await daemon.submit("echo a")
        await until(lambda: disk.failed >= 3)
        # The slot is free: what is not written holds up nothing else.
        assert await daemon.state(task_id) == "running"
        other = await daemon.submit("hold b")
        await daemon.wait_state(other, "running")
        disk.full = False
        daemon.work.let_go("b")
        await daemon.wait_state(task_id, "completed")
        assert (await daemon.ended_task(other))["state"] == "completed"
