"""Commits that fail, and commits whose answer is lost: each operation takes place once, and each caller gets its outcome."""

from __future__ import annotations

import math
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import galaxy_trio.daemon.task_queue
from galaxy_trio.daemon.store import acceptance
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.queries import WrongState
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store, UnknownOutcome, open_store
from galaxy_trio.testing.memory_fleet import open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.daemon.support.commit_faults import CommitFaults, Fault, commit_faults
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.store import ATTEMPT, add_task, queued_tasks, read_result
from tests.daemon.support.task_queue import ended_tasks, open_life, submit
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from galaxy_trio.daemon.store.committer import Transaction
    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


@asynccontextmanager
async def _faulty_store(location: Location) -> AsyncGenerator[tuple[Store, CommitFaults]]:
    async with open_store(location) as store:
        with commit_faults(store) as faults:
            yield store, faults


async def _together(store: Store, *operations: Callable[[], Awaitable[object]]) -> list[Any]:
    """Run operations in one transaction, in this order. Returns what they returned or raised, of any types."""
    running, release = threading.Event(), threading.Event()

    def hold(_transaction: Transaction) -> None:
        running.set()
        release.wait(SECONDS)

    outcomes: dict[int, object] = {}

    async def run(number: int, operation: Callable[[], Awaitable[object]]) -> None:
        try:
            outcomes[number] = await operation()
        except (StoreError, WrongState) as error:
            outcomes[number] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(store.write, hold, only_reads=True))
        await trio.to_thread.run_sync(running.wait, SECONDS)
        for number, operation in enumerate(operations):
            nursery.start_soon(run, number, operation)
            await trio.testing.wait_all_tasks_blocked()
        release.set()
    return [outcomes[number] for number in range(len(operations))]


async def test_commit_whose_answer_is_lost_accepts_begins_and_ends_a_task_once(database: Location) -> None:
    async with _faulty_store(database) as (store, faults):
        delivered: list[tuple[TaskRecord, bool]] = []
        for key in (None, "key"):
            faults.plan = [Fault.ANSWER_LOST] * 4
            record, is_new = await store.add(TaskRequest("echo", idempotency_key=key), delivered.append, store.life)
            assert is_new
            running = await store.mark_running(record.id, "d1", ATTEMPT, store.life)
            assert (running.state, running.device) == (TaskState.RUNNING, "d1")
            ended = await store.finish(record.id, ATTEMPT, store.life, TaskState.COMPLETED, result='"x"')
            again = await store.retry(record.id)
            assert faults.plan == []
            assert await store.get(record.id) == ended
            assert await read_result(store, record.id) == '"x"'
            assert [task.id for task in await queued_tasks(store)] == [again.id]
            await store.cancel_queued(again.id)
        assert [is_new for _, is_new in delivered] == [True, True]
        assert len(await store.page()) == 4


async def test_operations_of_a_commit_without_an_answer_get_their_outcomes_although_later_ones_changed_the_same_tasks(
    database: Location,
) -> None:
    async with _faulty_store(database) as (store, faults):
        cancelled, returned, failing = [await add_task(store) for _ in range(3)]
        await store.mark_running(returned.id, "d1", ATTEMPT, store.life)
        changes: list[TaskRecord] = []
        faults.plan = [Fault.ANSWER_LOST]
        outcomes = await _together(
            store,
            lambda: store.cancel_queued(cancelled.id, changes.append),
            lambda: store.mark_running(cancelled.id, "d1", "another", store.life),
            lambda: store.mark_queued(returned.id, ATTEMPT),
            lambda: store.cancel_queued(returned.id, changes.append),
            lambda: store.fail_queued(Requirement(), "no device", 1, changes.extend),
        )
        assert faults.seen == [Fault.ANSWER_LOST]
        states = [[await store.get(task.id)] for task in (cancelled, returned, failing)]
        (first, is_first), refused, queued, (second, is_second), failed = outcomes
        assert isinstance(refused, WrongState)
        assert (is_first, is_second, queued.state) == (True, True, TaskState.QUEUED)
        assert states == [[first], [second], failed]
        assert changes == [first, second, *failed]
        assert len(await store.departures(returned.id)) == 1


async def test_failed_commit_is_repeated_on_another_connection_a_limited_number_of_times(
    database: Location, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    async with _faulty_store(database) as (store, faults):
        faults.plan = [Fault.NOT_DONE] * 6
        await add_task(store)
        faults.plan = [Fault.NOT_DONE] * 7
        with pytest.raises(
            StoreError, match=r"another program has locked it|it failed: check that the server runs"
        ) as caught:
            await add_task(store, "never")
        assert not isinstance(caught.value, UnknownOutcome)
        assert faults.plan == []
        # All of a batch fail then: repeating each of them alone would take as many times as long.
        faults.plan = [Fault.NOT_DONE] * 7
        outcomes = await _together(store, *[partial(add_task, store, "never")] * 3)
        assert [type(outcome) for outcome in outcomes] == [type(caught.value)] * 3
        assert [task.asked.request for task in await queued_tasks(store)] == ["echo"]


async def test_commit_that_fails_for_good_is_repeated_for_each_operation_alone(database: Location) -> None:
    async with _faulty_store(database) as (store, faults):
        faults.plan = [Fault.NO_SPACE]
        with pytest.raises(StoreError, match="disk is full: free some space") as caught:
            await add_task(store, "never")
        assert not isinstance(caught.value, UnknownOutcome)
        faults.plan = [Fault.NO_SPACE, Fault.NONE, Fault.NO_SPACE]
        outcomes = await _together(store, *[partial(add_task, store, f"echo {number}") for number in range(3)])
        assert isinstance(outcomes[1], StoreError)
        assert [task.asked.request for task in await queued_tasks(store)] == ["echo 0", "echo 2"]


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.NOT_DONE])
async def test_database_that_is_back_within_seconds_has_stored_each_operation_once(
    fault: Fault, database: Location, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    async with _faulty_store(database) as (store, faults):
        faults.plan, faults.refused_afterwards = [fault], 4
        delivered: list[tuple[TaskRecord, bool]] = []
        record, is_new = await store.add(TaskRequest("echo"), delivered.append)
        assert faults.refused == 0
        assert delivered == [(record, is_new)] == [(await store.get(record.id), True)]
        assert len(await store.page()) == 1


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.NOT_DONE])
async def test_database_that_is_away_after_a_commit_shows_when_it_is_back_what_had_been_stored(
    fault: Fault, database: Location, mock_clock: MockClock
) -> None:
    mock_clock.autojump_threshold = 0
    stored = fault is Fault.ANSWER_LOST
    async with _faulty_store(database) as (store, faults):
        task = await add_task(store)
        running = await add_task(store)
        await store.mark_running(running.id, "d1", ATTEMPT, store.life)
        delivered: list[object] = []
        faults.plan, faults.refused_afterwards = [fault], math.inf
        finish = partial(store.finish, running.id, ATTEMPT, store.life, TaskState.COMPLETED, result='"x"')
        outcomes = await _together(
            store,
            lambda: store.add(TaskRequest("new"), lambda added: delivered.append(added[0].asked.request)),
            lambda: store.claim(Requirement(), store.life, 10, lambda _: delivered.append("claimed")),
            lambda: store.cancel_queued(task.id, lambda record: delivered.append(record.id)),
            finish,
        )
        assert [type(outcome) for outcome in outcomes] == [UnknownOutcome] * 4
        assert str(outcomes[0]).endswith("; it is not known whether this was stored")
        # Operations that could not begin are known not to be stored.
        with pytest.raises(StoreError) as caught:
            await store.add(TaskRequest("never"), lambda _: delivered.append("never"))
        assert not isinstance(caught.value, UnknownOutcome)
        assert delivered == []
        faults.refused = 0
        ended = await finish()
        assert (ended.state, ended.result_size) == (TaskState.COMPLETED, 3)
        assert await read_result(store, running.id) == '"x"'
        assert delivered == (["new", "claimed", task.id] if stored else [])
        assert {record.asked.request for record in await store.page()} == ({"echo", "new"} if stored else {"echo"})
        found = await store.get(task.id)
        assert found is not None
        assert found.state is (TaskState.CANCELLED if stored else TaskState.QUEUED)


async def test_operation_that_is_called_twice_recognises_the_task_that_it_added(database: Location) -> None:
    def add_twice(transaction: Transaction) -> list[tuple[TaskRecord, bool]]:
        return [acceptance.add(transaction, TaskRequest("echo", idempotency_key="key")) for _ in range(2)]

    def retry_twice(transaction: Transaction) -> list[TaskRecord]:
        return [acceptance.retry(transaction, task.id) for _ in range(2)]

    async with open_store(database) as store:
        [(task, is_new), again] = await store.write(add_twice)
        assert again == (task, is_new) == (task, True)
        await store.cancel_queued(task.id)
        first, second = await store.write(retry_twice)
        assert first == second
        assert len(await store.page()) == 2


def _does_not_know(monkeypatch: pytest.MonkeyPatch, name: str, place: int) -> list[str]:
    """Let the first call of a method of the store take place and raise `UnknownOutcome`. Returns the tokens of all calls."""
    method = getattr(Store, name)
    tokens: list[str] = []

    async def call(self: Store, *arguments: Any, **more: Any) -> TaskRecord:
        tokens.append(arguments[place])
        record: TaskRecord = await method(self, *arguments, **more)
        if len(tokens) == 1:
            raise UnknownOutcome("it is not known whether this was stored")
        return record

    monkeypatch.setattr(Store, name, call)
    return tokens


async def test_task_whose_beginning_may_be_on_disk_is_begun_once_by_the_same_token(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)
    tokens = _does_not_know(monkeypatch, "begin", 2)
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            [first] = await ended_tasks(life, await submit(life, "echo first", "d1"))
            [second] = await ended_tasks(life, await submit(life, "echo second", "d1"))
            assert (life.task_queue.queued, life.task_queue.running) == (0, 0)
    assert {first.state, second.state} == {TaskState.COMPLETED}
    assert work.begun == ["echo first", "echo second"]
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize("is_on_disk", [True, False])
async def test_task_whose_beginning_may_be_on_disk_can_be_cancelled(
    database: Location, monkeypatch: pytest.MonkeyPatch, is_on_disk: bool
) -> None:
    begin, fail = Store.begin, trio.Event()

    async def does_not_know(self: Store, *arguments: Any) -> TaskRecord:
        if is_on_disk and not fail.is_set():
            await begin(self, *arguments)
        fail.set()
        raise UnknownOutcome("it is not known whether this was stored")

    monkeypatch.setattr(Store, "begin", does_not_know)
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            task = await submit(life, "hold first", "d1")
            await fail.wait()
            cancelled = await life.task_queue.cancel(task.id)
            assert cancelled.state is TaskState.CANCELLED
            assert (life.task_queue.queued, life.task_queue.running) == (0, 0)
            monkeypatch.undo()
            await ended_tasks(life, await submit(life, "echo second", "d1"))
    assert work.begun == ["echo second"]


async def test_task_that_may_be_queued_again_on_disk_is_running_on_disk_before_it_is_sent(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)
    tokens = _does_not_know(monkeypatch, "mark_queued", 1)
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            await ended_tasks(life, await submit(life, "echo first", "d1"))
            await fleet.kill_device("d1")
            task = await submit(life, "hold second", "d1")
            await until(lambda: bool(tokens))
            failures = 1
            begin = Store.begin

            async def fail_once(self: Store, *arguments: Any) -> TaskRecord:
                nonlocal failures
                failures -= 1
                if failures >= 0:
                    await trio.lowlevel.checkpoint()
                    raise StoreError("the disk fails")
                return await begin(self, *arguments)

            monkeypatch.setattr(Store, "begin", fail_once)
            await fleet.start_device("d1")
            await until(lambda: len(work.begun) == 2)
            on_disk = await life.store.get(task.id)
            assert on_disk is not None
            assert on_disk.state is TaskState.RUNNING
            work.release("second")
            [ended] = await ended_tasks(life, task)
    assert failures < 0
    assert ended.state is TaskState.COMPLETED
    assert work.begun == ["echo first", "hold second"]


async def test_task_that_may_be_queued_again_on_disk_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = _does_not_know(monkeypatch, "mark_queued", 1)
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(tmp_path / "db", fleet) as life:
            await ended_tasks(life, await submit(life, "echo first", "d1"))
            await fleet.kill_device("d1")
            task = await submit(life, "echo second", "d1")
            await until(lambda: bool(tokens))
            cancelled = await life.task_queue.cancel(task.id)
            assert cancelled.state is TaskState.CANCELLED
            assert (life.task_queue.queued, life.task_queue.running) == (0, 0)
            assert [record.state for record in life.changes if record.id == task.id] == [
                TaskState.QUEUED,
                TaskState.RUNNING,
                TaskState.CANCELLED,
            ]
            await fleet.start_device("d1")
            await ended_tasks(life, await submit(life, "echo third", "d1"))
    assert work.begun == ["echo first", "echo third"]


async def test_response_says_that_it_is_not_known_whether_a_task_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _does_not_know(monkeypatch, "add", 0)
    async with open_daemon(tmp_path, "d1") as daemon:
        body: dict[str, JSON] = {"request": "echo b", "device": "d1", "idempotency_key": "k"}
        answer = await daemon.ask("POST", "/tasks", 507, json=body)
        assert answer["error"] == "it is not known whether this was stored"
        task = await daemon.ask("POST", "/tasks", json=body)
        assert (await daemon.ended_task(task["id"]))["state"] == "completed"
    assert daemon.work.begun == ["echo b"]
