"""The daemon's memory under attack: long errors, long requests, many features. Lists and events have short forms of them."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio

import galaxy_trio.constellation.supervisor
from galaxy_trio.daemon.requirement_queue import RequirementQueue
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import NoSuchTask
from galaxy_trio.daemon.store.records import MAX_ERROR, MAX_EXCERPT, Requirement, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.daemon.web.short_forms import whole_task
from galaxy_trio.testing.memory_fleet import MemoryFleet
from tests.constellation.support.fleet import Work
from tests.constellation.support.scripted_server import open_scripted_server
from tests.daemon.support.daemon import RunningDaemon, open_daemon
from tests.daemon.support.listener import listen
from tests.daemon.support.scheduling import make_record
from tests.daemon.support.store import ATTEMPT, add_task
from tests.support.memory import traced_memory
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from galaxy_trio import DeviceConfig
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.daemon

MIB = 2**20
# The characters have 1 to 4 bytes in UTF-8, and cuts fall into each of them. SQLite's own functions end at a NUL.
TEXT = "a\0é€😀\n\x01" * 40_000


class _Device(Work):
    """Records only the size of each request, and fails with an error of 60 MiB, or of any given size."""

    async def __call__(self, task: ServerTask) -> object:
        word, _, rest = task.request.partition(" ")
        if word == "error":
            raise RuntimeError("no paper " + "x" * int(rest))
        if word == "hold":
            return await super().__call__(task)
        self.begun.append(f"{len(task.request)}")
        await trio.lowlevel.checkpoint()
        return None


def _connect_with(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]]
) -> None:
    """Make the daemon connect in another way than the devices."""
    original = MemoryFleet.connect

    async def connect_either(fleet: MemoryFleet, config: DeviceConfig | None = None) -> trio.abc.Stream:
        return await original(fleet) if config is None else await connect(config)

    monkeypatch.setattr(MemoryFleet, "connect", connect_either)


async def _published_tasks(daemon: RunningDaemon) -> list[dict[str, Any]]:
    """Every task in the daemon's events since its start."""
    last = await daemon.submit("hold the last")
    published: list[dict[str, Any]] = []
    async with listen(daemon, "") as listener:
        while True:
            kind, data = await listener.next()
            if kind == "task" and data["id"] == last:
                return published
            if kind == "task":
                published.append(data)


@pytest.mark.slow
async def test_errors_of_60_mib_again_and_again_take_no_memory_and_are_stored_with_64_kib(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=_Device()) as daemon:
        await daemon.wait_connected(1)
        await daemon.ended_task(await daemon.submit("error 1"))
        with traced_memory() as memory:
            before = memory.now
            tasks = [await daemon.ended_task(await daemon.submit(f"error {60 * MIB}")) for _ in range(3)]
            await until(lambda: memory.now - before < 4 * MIB)
        for task in tasks:
            assert task["state"] == "failed"
            assert "no paper x" in task["error"]
            _, _, size = task["error"].rpartition("(the first part of ")
            assert size.startswith("62,914,")
            assert len(task["error"].encode()) == task["error_size"] == MAX_ERROR
        page = await daemon.client.get("/tasks")
        assert len(page.content) < 20_000
        assert {(len(task["error"]), task["error_size"]) for task in page.json()["tasks"][:3]} == {
            (MAX_EXCERPT, MAX_ERROR)
        }
        published = await _published_tasks(daemon)
        sizes = {(len(task["error"]), task["error_size"]) for task in published if task["ended"]}
        assert (MAX_EXCERPT, MAX_ERROR) in sizes


async def test_ended_requests_of_1_mib_take_no_memory(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=_Device()) as daemon:
        await daemon.wait_connected(1)
        await daemon.ended_task(await daemon.submit("x" * 1_000_000))
        with traced_memory() as memory:
            before = memory.now
            for _ in range(20):
                await daemon.ended_task(await daemon.submit("x" * 1_000_000))
            await until(lambda: memory.now - before < 4 * MIB)
        assert daemon.work.begun == ["1000000"] * 21
        page = await daemon.client.get("/tasks")
        assert len(page.content) < 21 * 2 * MAX_EXCERPT
        assert {(len(task["request"]), task["request_size"]) for task in page.json()["tasks"]} == {
            (MAX_EXCERPT, 1_000_000)
        }
        sizes = {(len(task["request"]), task["request_size"]) for task in await _published_tasks(daemon)}
        assert sizes == {(MAX_EXCERPT, 1_000_000)}


async def test_queued_requests_of_1_mib_take_no_memory_and_run_whole(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=_Device()) as daemon:
        await daemon.wait_connected(1)
        await daemon.wait_state(await daemon.submit("hold a"), "running")
        with traced_memory() as memory:
            before = memory.now
            queued = [await daemon.submit("x" * 1_000_000) for _ in range(15)]
            assert "galaxy_tasks_in_memory 15.0" in (await daemon.client.get("/metrics")).text
            await until(lambda: memory.now - before < 3 * MIB)
        daemon.work.release("a")
        assert [(await daemon.ended_task(task))["state"] for task in queued] == ["completed"] * 15
        assert daemon.work.begun[1:] == ["1000000"] * 15


async def test_server_that_reports_20_mib_of_features_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(galaxy_trio.constellation.supervisor, "INFORMATION_TIMEOUT", SECONDS)
    async with open_scripted_server() as server:
        server.info = [{"platform": "linux", "supported_features": [f"{number:10000}" for number in range(2_000)]}]

        _connect_with(monkeypatch, server.connect)
        with traced_memory() as memory:
            before = memory.now
            async with open_daemon(tmp_path, "d1") as daemon:
                await daemon.wait_connected(1)
                await until(lambda: "device 'd1' is ignored, because it takes more than 262,144 bytes" in caplog.text)
                devices = await daemon.client.get("/devices")
                await until(lambda: memory.now - before < 8 * MIB)
                [device] = devices.json()["devices"]
                assert (device["status"], device["capabilities"], device["capability_count"]) == ("idle", [], 0)
                assert len(devices.content) < 4_000


async def test_lists_have_the_first_capabilities_of_a_device_and_the_device_has_all(tmp_path: Path) -> None:
    names: list[JSON] = [f"capability {number}" for number in range(5_000)]
    async with open_daemon(tmp_path, "d1") as daemon:
        daemon.devices("d1", capabilities=names)
        await daemon.reload()
        # A changed device is removed and added again.
        while (await daemon.client.get("/devices/d1")).json().get("capabilities") != names:  # noqa: ASYNC110
            await trio.sleep(0.005)
        listed = await daemon.client.get("/devices")
        [device] = listed.json()["devices"]
        assert device["capabilities"] == names[: len(device["capabilities"])]
        assert 50 < len(device["capabilities"]) < MAX_EXCERPT / len("capability")
        assert device["capability_count"] == (await daemon.ask("GET", "/devices/d1"))["capability_count"] == 5_000
        assert len(listed.content) < 4_000


async def test_problem_of_a_device_is_cut_in_lists_and_whole_in_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "no " + "ä" * 2_000

    async def connect(_config: DeviceConfig) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError(problem)

    _connect_with(monkeypatch, connect)
    async with open_daemon(tmp_path, "d1") as daemon:
        while problem not in ((device := await daemon.ask("GET", "/devices/d1"))["problem"] or ""):  # noqa: ASYNC110
            await trio.sleep(0.005)
        [listed] = (await daemon.ask("GET", "/devices"))["devices"]
        size = len(device["problem"].encode())
        assert device["problem_size"] == listed["problem_size"] == size > 4_000
        assert device["problem"].startswith(listed["problem"])
        assert MAX_EXCERPT - 1 <= len(listed["problem"].encode()) <= MAX_EXCERPT


async def test_whole_task_is_streamed_with_every_character_and_its_short_form_tells_the_sizes(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", work=Work()) as daemon:
        await daemon.wait_connected(1)
        short = await daemon.ask("POST", "/tasks", 202, json={"request": TEXT, "device": "d1"})
        task = await daemon.ended_task(short["id"])
        assert (task["request"], task["result"]) == (TEXT, {"device": "d1", "echo": ""})
        assert task["request_size"] == short["request_size"] == len(TEXT.encode())
        assert TEXT.startswith(short["request"])
        assert MAX_EXCERPT - 3 <= len(short["request"].encode()) <= MAX_EXCERPT
        again = await daemon.ask("POST", f"/tasks/{short['id']}/retry", 202)
        cancelled = await daemon.ask("DELETE", f"/tasks/{again['id']}")
        for form in (again, cancelled):
            assert (form["request"], form["request_size"]) == (short["request"], short["request_size"])
        whole = await daemon.ended_task(again["id"])
        assert whole["request"] == TEXT


async def test_whole_task_is_read_in_pieces(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db") as store:
        record = await add_task(store, TEXT)
        record = await store.finish(
            record.id, ATTEMPT, store.life, TaskState.FAILED, error="no " + TEXT, result=json.dumps("x" * MIB)
        )
        pieces = [piece async for piece in whole_task(store, record, with_result=True)]
        assert max(map(len, pieces)) < 200_000
        whole = json.loads(b"".join(pieces))
        assert (whole["request"], whole["result"]) == (TEXT, "x" * MIB)
        assert whole["error"].startswith("no " + TEXT[:20_000])
        assert whole["error_size"] == len(whole["error"].encode()) <= MAX_ERROR


async def test_task_that_is_deleted_while_it_is_sent_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def read_text(_store: Store, task_id: str, _column: str) -> AsyncGenerator[str]:
        yield "x"
        await trio.lowlevel.checkpoint()
        raise NoSuchTask(f"there is no task {task_id!r}")

    async with open_daemon(tmp_path, "d1", work=_Device()) as daemon:
        task_id = await daemon.submit("x" * 100_000)
        monkeypatch.setattr(Store, "read_text", read_text)
        with pytest.raises(httpx2.RemoteProtocolError):
            await daemon.client.get(f"/tasks/{task_id}")
        assert "a response is incomplete: there is no task" in caplog.text
        assert "Traceback" not in caplog.text
        # It is small enough to be read before the response begins.
        small = await daemon.submit("x" * 2_000)
        assert "there is no task" in (await daemon.ask("GET", f"/tasks/{small}", 404))["error"]


async def test_deleted_task_has_no_text_and_no_result(tmp_path: Path) -> None:
    async with open_store(tmp_path / "db") as store:
        record = await add_task(store, "x" * 5_000)
        record = await store.finish(record.id, ATTEMPT, store.life, TaskState.COMPLETED, result='"x"')
        await store.delete_old(record.created, 1)
        await add_task(store)
        newest = await add_task(store)
        await store.finish(newest.id, ATTEMPT, store.life, TaskState.CANCELLED)
        assert await store.delete_old(record.created, 1) == 1
        with pytest.raises(NoSuchTask):
            await store.whole_request(record.id)
        with pytest.raises(NoSuchTask):
            [text async for text in store.read_text(record.id, "request")]
        small = await add_task(store, "small")
        small = await store.finish(small.id, ATTEMPT, store.life, TaskState.COMPLETED, result='"x"')
        newest = await add_task(store)
        await store.finish(newest.id, ATTEMPT, store.life, TaskState.CANCELLED)
        await store.delete_old(record.created, 1)
        with pytest.raises(NoSuchTask):
            [piece async for piece in whole_task(store, small, with_result=True)]


async def test_pages_of_tasks_take_no_memory_for_long_requests_and_errors(tmp_path: Path) -> None:
    requirement = Requirement(os="linux")
    async with open_store(tmp_path / "db") as store:
        for _ in range(40):
            await store.add(TaskRequest("x" * MIB, os="linux"))
        reason = "y" * 60 * MIB
        reads: list[Callable[[], Awaitable[list[TaskRecord]]]] = [
            partial(store.claim, requirement, store.life, 1_000),
            partial(store.page, limit=1_000),
            partial(store.fail_queued, requirement, reason, 1_000),
            partial(store.page, limit=1_000),
        ]
        with traced_memory() as memory:
            for read in reads:
                memory.reset_peak()
                before = memory.now
                records = await read()
                assert len(records) == 40
                assert {record.request_size for record in records} == {MIB}
                assert memory.peak - before < 5 * MIB
                del records


def test_queued_tasks_share_the_capabilities_that_they_require() -> None:
    requirement = Requirement(capabilities=("c" * 100,))
    queue = RequirementQueue(requirement)
    queue.slots = 1
    queue.put(make_record(1, Requirement(capabilities=("c" * 99 + "c",))))
    queue.add_claimed([make_record(2, Requirement(capabilities=("c" * 99 + "c",)))], is_last=True)
    for _ in range(2):
        assert queue.take().asked.capabilities is requirement.capabilities


@pytest.mark.slow
async def test_errors_that_cannot_be_written_take_no_memory_while_they_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []

    async def fail(_store: Store, task_id: str, *_arguments: object, **_more: object) -> None:
        await trio.lowlevel.checkpoint()
        failures.append(task_id)
        raise StoreError("the disk is full")

    async with open_daemon(tmp_path, "d1", work=_Device()) as daemon:
        await daemon.wait_connected(1)
        await daemon.ended_task(await daemon.submit("error 1"))
        monkeypatch.setattr(Store, "finish", fail)
        with traced_memory() as memory:
            before = memory.now
            for number in range(1, 4):
                await daemon.submit(f"error {20 * MIB}")
                while len(set(failures)) < number:  # noqa: ASYNC110
                    await trio.sleep(0.005)
            await until(lambda: memory.now - before < 4 * MIB)
        monkeypatch.undo()


async def test_long_capabilities_are_refused(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        body = {"request": "x", "capabilities": ["c" * 800] * 6}
        answer = await daemon.ask("POST", "/tasks", 400, json=body)
        assert answer["error"] == "capabilities: expected at most 4,000 characters in all of them together"
