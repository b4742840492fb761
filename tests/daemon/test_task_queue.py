"""The task queue with devices in memory and a real database: disconnects, restarts, cancellations, failing writes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs
import hypothesis.strategies as st
import pytest
import trio
from hypothesis import HealthCheck, given, settings

import galaxy_trio.daemon.attempts
import galaxy_trio.daemon.scheduler
import galaxy_trio.daemon.task_queue
from galaxy_trio.daemon.refusals import DaemonBusy
from galaxy_trio.daemon.requirement_queue import READ_AHEAD
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest, TaskState
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.testing.memory_fleet import MemoryFleet, open_memory_fleet
from tests.constellation.support.fleet import Work
from tests.daemon.support.task_queue import Life, ended_tasks, open_life, submit
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio import DeviceConfig
    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon

DEVICES: Final = ("d1", "d2", "d3")
SECONDS: Final = 60


_ACTIONS: Final = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from([*DEVICES, "any", "windows"]), st.sampled_from([1, 3, 30])),
    st.tuples(st.just("leave"), st.sampled_from(DEVICES), st.just(0)),
    st.tuples(st.just("return"), st.sampled_from(DEVICES), st.just(0)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 1_000)),
    st.tuples(st.just("pause"), st.just(""), st.integers(0, 20)),
)


class History:
    """The tasks that several consecutive daemons accepted."""

    def __init__(self, location: Location, fleet: MemoryFleet) -> None:
        self._location = location
        self._fleet = fleet
        self._accepted: list[TaskRecord] = []

    async def live(self, actions: list[tuple[str, str, int]]) -> None:
        """Run a daemon that ends while tasks are running."""
        async with open_life(self._location, self._fleet, max_running=3) as life:
            for kind, name, number in actions:
                await self._act(life, kind, name, number)
                # For each of the five requirements one task per slot and a few more, and the tasks that have a slot but have not begun.
                assert life.task_queue.in_memory <= 5 * (len(DEVICES) + READ_AHEAD) + 3

    async def _act(self, life: Life, kind: str, name: str, number: int) -> None:
        if kind == "submit":
            for _ in range(number):
                asked = TaskRequest(
                    f"echo {name} {len(self._accepted)}",
                    name if name in DEVICES else None,
                    name if name == "windows" else None,
                    # The order of those for one device is compared.
                    priority=0 if name in DEVICES else len(self._accepted) % 7,
                )
                record, _ = await life.task_queue.submit(asked)
                self._accepted.append(record)
        elif kind == "leave" and name in self._fleet.running:
            await self._fleet.kill_device(name)
        elif kind == "return" and name not in self._fleet.running:
            await self._fleet.start_device(name, platform="windows" if name == "d3" else "linux")
        elif kind == "cancel" and self._accepted:
            cancelled = await life.task_queue.cancel(self._accepted[number % len(self._accepted)].id)
            assert cancelled.state.ended
        elif kind == "pause":
            await trio.sleep(number / 1000)

    async def end(self) -> list[TaskRecord]:
        """Connect all devices, and wait for the end of every task."""
        for name in DEVICES:
            if name not in self._fleet.running:
                await self._fleet.start_device(name, platform="windows" if name == "d3" else "linux")
        async with open_life(self._location, self._fleet) as life:
            ended = await ended_tasks(life, *self._accepted)
            assert (life.task_queue.queued, life.task_queue.in_memory) == (0, 0)
        return ended


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(st.lists(_ACTIONS, max_size=12), min_size=1, max_size=3))
def test_every_task_runs_at_most_once_in_order_and_ends(
    new_database: Callable[[], Location], lives: list[list[tuple[str, str, int]]]
) -> None:
    work = Work()

    async def main() -> list[TaskRecord]:
        with trio.fail_after(SECONDS):
            async with open_memory_fleet("d1", "d2", session=work) as fleet:
                await fleet.start_device("d3", platform="windows")
                history = History(new_database(), fleet)
                for actions in lives:
                    await history.live(actions)
                return await history.end()

    ended = trio.run(main)
    begun = Counter(work.begun)
    assert all(task.state.ended for task in ended)
    assert set(begun.values()) <= {1}
    assert all(begun[task.asked.request] == 1 for task in ended if task.state is TaskState.COMPLETED)
    assert not any(begun[task.asked.request] for task in ended if task.started is None)
    for device in DEVICES:
        numbers = [int(request.split()[2]) for request in work.begun if request.split()[1] == device]
        assert numbers == sorted(numbers)


async def test_tasks_for_one_device_and_for_any_run_in_the_order_of_acceptance(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            held = await submit(life, "hold first", "d1")
            tasks = [
                await submit(life, f"echo {number}", "d1" if number % 3 else None) for number in range(3 * READ_AHEAD)
            ]
            work.release("first")
            await ended_tasks(life, held, *tasks)
    assert work.begun == ["hold first", *(f"echo {number}" for number in range(3 * READ_AHEAD))]


async def test_tasks_for_a_disconnected_device_delay_no_others(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2", session=work) as fleet:
            await fleet.kill_device("d2")
            async with open_life(database, fleet) as life:
                queued = [await submit(life, f"echo {number}", "d2") for number in range(100)]
                await ended_tasks(life, await submit(life, "echo other", "d1"), await submit(life, "echo any"))
                assert life.task_queue.queued == life.task_queue.queued_for("d2") == 100
                # They are not in memory, yet each can be read and cancelled.
                assert life.task_queue.in_memory == 0
                assert (await life.task_queue.wait(queued[50].id, 0)).state is TaskState.QUEUED
                assert (await life.task_queue.cancel(queued[50].id)).state is TaskState.CANCELLED
                await fleet.start_device("d2")
                ended = await ended_tasks(life, *queued)
    assert [task.state for task in ended] == [
        TaskState.CANCELLED if number == 50 else TaskState.COMPLETED for number in range(100)
    ]
    assert work.begun[2:] == [f"echo {number}" for number in range(100) if number != 50]


async def test_task_whose_device_turns_out_to_have_left_is_queued_again_and_survives_the_daemon(
    database: Location,
) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2", session=work) as fleet:
            async with open_life(database, fleet) as life:
                await ended_tasks(life, await submit(life, "echo first", "d1"))
                # The daemon learns of it only when it sends the task on its idle connection.
                await fleet.kill_device("d1")
                waits = await submit(life, "echo second", "d1")
                counts = {TaskState.RUNNING: 0, TaskState.QUEUED: 1}
                states = [TaskState.QUEUED, TaskState.RUNNING, TaskState.QUEUED]
                await until(lambda: [change.state for change in life.changes if change.id == waits.id] == states)
                assert (life.task_queue.running, life.task_queue.queued) == (0, 1)
                record = await life.task_queue.wait(waits.id, 0)
                assert (record.state, record.device, record.started) == (TaskState.QUEUED, None, None)
                [departure] = await life.store.departures(waits.id)
                assert (departure.device, departure.chosen <= departure.left) == ("d1", True)
                on_disk = await life.store.counts()
                assert {state: on_disk[state] for state in counts} == counts
                cancelled = await submit(life, "echo third", "d1")
                assert (await life.task_queue.cancel(cancelled.id)).state is TaskState.CANCELLED
            async with open_life(database, fleet) as life:
                await fleet.start_device("d1")
                [ended] = await ended_tasks(life, waits)
    assert ended.state is TaskState.COMPLETED
    assert work.begun == ["echo first", "echo second"]


async def test_cancelled_task_that_ends_at_the_same_time_is_returned_as_it_ended(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    cancel_queued = Store.cancel_queued

    async def see_it_running(store: Store, task_id: str, *deliver: Callable[[TaskRecord], None]) -> object:
        seen = await cancel_queued(store, task_id, *deliver)
        work.release("it")
        await ended_tasks(life, held)
        return seen

    monkeypatch.setattr(Store, "cancel_queued", see_it_running)
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            held = await submit(life, "hold it", "d1")
            await until(lambda: work.begun == ["hold it"])
            assert (await life.task_queue.cancel(held.id)).state is TaskState.COMPLETED


async def test_cancelled_task_that_is_queued_again_at_the_same_time_is_cancelled(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel_queued = Store.cancel_queued
    calls = 0

    async def see_it_running_first(store: Store, task_id: str, *deliver: Callable[[TaskRecord], None]) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            return attrs.evolve(await store.existing(task_id), state=TaskState.RUNNING), False
        return await cancel_queued(store, task_id, *deliver)

    monkeypatch.setattr(Store, "cancel_queued", see_it_running_first)
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2") as fleet:
            await fleet.kill_device("d2")
            async with open_life(database, fleet) as life:
                waits = await submit(life, "echo it", "d2")
                assert (await life.task_queue.cancel(waits.id)).state is TaskState.CANCELLED
                assert (life.task_queue.running, life.task_queue.queued) == (0, 0)


async def test_task_that_cannot_be_written_as_queued_again_waits_for_its_device(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work()
    refused = trio.Event()

    async def fail(_self: Store, _task_id: str, _attempt: str, *, has_graph: bool) -> TaskRecord:
        assert not has_graph
        await trio.lowlevel.checkpoint()
        refused.set()
        raise StoreError("the disk fails")

    monkeypatch.setattr(Store, "mark_queued", fail)
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            await ended_tasks(life, await submit(life, "echo first", "d1"))
            await fleet.kill_device("d1")
            task = await submit(life, "echo second", "d1")
            await refused.wait()
            assert (await life.task_queue.wait(task.id, 0)).state is TaskState.RUNNING
            await fleet.start_device("d1")
            [ended] = await ended_tasks(life, task)
    assert ended.state is TaskState.COMPLETED
    assert work.begun == ["echo first", "echo second"]


async def test_wait_returns_at_the_end_of_a_task_that_was_only_on_disk(database: Location) -> None:
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", session=work) as fleet, open_life(database, fleet) as life:
            await submit(life, "hold first", "d1")
            tasks = [await submit(life, f"echo {number}", "d1") for number in range(3 * READ_AHEAD)]
            seen: list[TaskRecord] = []

            async def wait() -> None:
                seen.append(await life.task_queue.wait(tasks[-1].id, SECONDS))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.01)
                work.release("first")
    assert [task.state for task in seen] == [TaskState.COMPLETED] * 2


async def test_task_that_a_device_does_not_begin_in_time_runs_on_another(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.attempts, "_BEGIN_TIMEOUT", 0.1)
    refuses = trio.Event()
    refused: set[str] = set()
    async with open_memory_fleet("d1", "d2", session=Work()) as fleet:
        connect = fleet.connect

        async def connect_or_refuse(config: DeviceConfig) -> trio.abc.Stream:
            # The device that gets the task first cannot connect for it; the other one can.
            if refuses.is_set() and (not refused or config.device_id in refused):
                refused.add(config.device_id)
                raise OSError("connection refused")
            return await connect(config)

        monkeypatch.setattr(fleet, "connect", connect_or_refuse)
        with trio.fail_after(SECONDS):
            async with open_life(database, fleet) as life:
                await ended_tasks(life, await submit(life, "echo", "d1"), await submit(life, "echo", "d2"))
                refuses.set()
                [ended] = await ended_tasks(life, await submit(life, "echo any"))
    assert ended.state is TaskState.COMPLETED
    assert ended.device not in refused


async def test_task_for_any_device_fails_when_none_can_run_it(database: Location) -> None:
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2", session=Work()) as fleet:
            await fleet.kill_device("d2")
            async with open_life(database, fleet) as life:
                record, _ = await life.task_queue.submit(TaskRequest("echo", None, "windows"))
                await fleet.start_device("d2")
                [failed] = await ended_tasks(life, record)
    assert (failed.state, failed.started) == (TaskState.FAILED, None)
    assert "none runs 'windows'" in str(failed.error)


async def test_tasks_of_a_device_that_is_no_longer_configured_fail_after_a_restart(database: Location) -> None:
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2", session=Work()) as fleet:
            await fleet.kill_device("d2")
            async with open_life(database, fleet) as life:
                tasks = [await submit(life, "echo", "d2") for _ in range(300)]
        async with open_memory_fleet("d1", session=Work()) as fleet, open_life(database, fleet) as life:
            ended = await ended_tasks(life, *tasks)
    assert {task.error for task in ended} == {"device 'd2' was removed"}


async def test_too_many_different_requirements_are_refused(database: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "MAX_QUEUES", 0)
    async with open_memory_fleet("d1", session=Work()) as fleet, open_life(database, fleet) as life:
        with pytest.raises(DaemonBusy, match="use fewer combinations of os and capabilities"):
            await life.task_queue.submit(TaskRequest("echo", None, "linux"))


async def test_failed_writes_of_claims_and_of_failures_are_retried(
    database: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.task_queue, "_RETRY_DELAY", 0.01)
    failed: Counter[str] = Counter()

    def failing_once(name: str) -> None:
        method = getattr(Store, name)

        async def fail(*arguments: object) -> object:
            failed[name] += 1
            if failed[name] == 1:
                await trio.lowlevel.checkpoint()
                raise StoreError("the disk fails")
            return await method(*arguments)

        monkeypatch.setattr(Store, name, fail)

    failing_once("claim")
    failing_once("return_claims")
    failing_once("fail_queued")
    work = Work()
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1", "d2", session=work) as fleet:
            await fleet.kill_device("d2")
            async with open_life(database, fleet) as life:
                unservable, _ = await life.task_queue.submit(TaskRequest("echo", None, "windows"))
                await submit(life, "hold first", "d1")
                tasks = [await submit(life, "echo", "d1") for _ in range(2 * READ_AHEAD)]
                # It takes the place of a claimed task.
                tasks += [(await life.task_queue.submit(TaskRequest("echo", "d1", priority=1)))[0]]
                work.release("first")
                await fleet.start_device("d2")
                assert {task.state for task in await ended_tasks(life, *tasks)} == {TaskState.COMPLETED}
                assert [task.state for task in await ended_tasks(life, unservable)] == [TaskState.FAILED]
                await until(lambda: life.task_queue.running == 0)
    assert min(failed.values()) > 1
