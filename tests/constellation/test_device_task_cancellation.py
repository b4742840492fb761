"""Tasks that are cancelled or time out in any step: they are stopped, or continue and keep their device busy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from galaxy_trio import RequestTimeout
from galaxy_trio.events import DeviceStatus, TaskAbandoned, TaskEnded, TaskOutcome, TaskQueued
from tests.connection.support.cancellation import CancelAtStep
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from galaxy_trio.constellation.task import OnCancel
    from galaxy_trio.messages import TaskResult


RunTask: TypeAlias = "Callable[..., Awaitable[TaskResult]]"
STILL_ENDED = 5
"""After this many calls in a row that ended before the cancellation, there is no later step."""


async def _in_a_reservation(world: World, request: str, on_cancel: OnCancel) -> TaskResult:
    async with world.a.reserve() as reservation:
        return await reservation.run_task(request, on_cancel=on_cancel)


def _runner(world: World, how: str) -> RunTask:
    match how:
        case "device":
            return world.a.run_task
        case "constellation":
            return world.constellation.run_task
        case _:
            return partial(_in_a_reservation, world)


@pytest.mark.slow
@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
@pytest.mark.parametrize("how", ["device", "constellation", "reservation"])
async def test_cancelling_at_every_step_leaves_nothing_behind_and_the_next_task_runs(
    how: str, on_cancel: OnCancel, autojump_clock: MockClock
) -> None:
    cancelled = ended = step = 0
    async with open_world("a", max_concurrent_tasks=1) as world, recording(world.constellation) as journal:
        run_task = _runner(world, how)
        while ended < STILL_ENDED:
            step += 1
            first, second = Call(), Call()
            instrument = CancelAtStep(step, first.scope)
            with trio.fail_after(1000):
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(first.run, partial(run_task, f"echo {step}", on_cancel=on_cancel))
                        nursery.start_soon(second.run, partial(world.a.run_task, "echo next"))
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert second.echo == "next"
            await trio.testing.wait_all_tasks_blocked()
            world.nothing_is_held()
            assert world.a.status is DeviceStatus.IDLE
            if first.cancelled:
                cancelled += 1
                ended = 0
            else:
                assert first.echo == str(step)
                ended += 1
        assert world.fleet.work.most == {"a": 1}
        # Each session that began on the server has ended or was cancelled, once.
        work = world.fleet.work
        assert sorted(work.begun) == sorted([*work.ended, *work.cancelled])
        assert cancelled > 20
        await trio.testing.wait_all_tasks_blocked()
    queued = [event.task_id for event in journal.of(TaskQueued) if isinstance(event, TaskQueued)]
    ends = [event for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)]
    outcomes = {event.outcome for event in ends}
    # A task with a free slot that is abandoned has very few steps before the send.
    assert outcomes - {TaskOutcome.CANCELLED} == {TaskOutcome.COMPLETED}
    assert TaskOutcome.CANCELLED in outcomes or (how, on_cancel) == ("reservation", "abandon")
    ended_tasks = [event.task_id for event in ends]
    assert len(ended_tasks) == len(set(ended_tasks))
    if how != "reservation":
        assert set(ended_tasks) == set(queued)


async def _cancel(call: Call) -> None:
    call.scope.cancel()
    await call.ended.wait()
    assert call.cancelled


async def _time_out(call: Call) -> None:
    await call.ended.wait()
    assert isinstance(call.ending, RequestTimeout)
    assert "did not end on device 'a' within 50 s" in str(call.ending)


@pytest.mark.parametrize("give_up", [_cancel, _time_out])
async def test_cancelled_task_is_stopped_on_the_server_before_the_call_returns(
    give_up: Callable[[Call], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery, recording(world.constellation) as journal:
        first = await start(nursery, partial(world.a.run_task, "hold 1", timeout=50))
        second = await start(nursery, partial(world.a.run_task, "hold 2"))
        await give_up(first)
        assert trio.current_time() == pytest.approx(0 if give_up is _cancel else 50, abs=0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert world.fleet.work.cancelled == ["hold 1"]
        # Well before anything else could have ended the task.
        await trio.sleep(1)
        assert world.begun == ["hold 1", "hold 2"]
        world.fleet.work.release("2")
        await second.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()
        outcome = TaskOutcome.CANCELLED if give_up is _cancel else TaskOutcome.TIMED_OUT
        assert [event.outcome for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)] == [
            outcome,
            TaskOutcome.COMPLETED,
        ]


async def test_cancelled_task_leaves_the_queue_and_the_order_of_the_others_stays(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        calls = [await start(nursery, partial(world.a.run_task, f"hold {number}")) for number in range(4)]
        calls[1].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (world.a.running, world.a.queued) == (1, 2)
        world.fleet.work.release("0", "1", "2", "3")
        for call in calls:
            await call.ended.wait()
        assert world.begun == ["hold 0", "hold 2", "hold 3"]
        world.nothing_is_held()


@pytest.mark.parametrize("how", ["device", "constellation"])
async def test_slot_granted_in_the_step_of_a_cancellation_is_released(how: str, autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        # The order of the two is random.
        for _ in range(20):
            enough = trio.Event()

            async def hold(enough: trio.Event = enough) -> None:
                async with world.a.reserve():
                    await enough.wait()

            holder = await start(nursery, hold)
            waiter = await start(nursery, partial(_runner(world, how), "echo"))
            assert world.a.queued == 1
            waiter.scope.cancel()
            enough.set()
            await holder.ended.wait()
            await waiter.ended.wait()
            assert waiter.cancelled
            assert (world.a.status, world.a.running, world.a.queued) == (DeviceStatus.IDLE, 0, 0)
        assert world.begun == []
        assert (await world.constellation.run_task("echo")).unwrap()


@pytest.mark.parametrize("give_up", [_cancel, _time_out])
async def test_abandoned_task_keeps_its_device_busy_until_it_has_ended(
    give_up: Callable[[Call], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery, recording(world.constellation) as journal:
        device = world.a
        first = await start(
            nursery, partial(device.run_task, "hold 1", timeout=50, on_cancel="abandon", task_id="first")
        )
        second = await start(nursery, partial(device.run_task, "echo 2"))
        assert world.connections == 2
        await give_up(first)
        await trio.sleep(100)
        assert (device.status, device.running, device.queued) == (DeviceStatus.BUSY, 1, 1)
        assert journal.of(TaskAbandoned) == [TaskAbandoned("a", "first")]
        world.fleet.work.release("1")
        await second.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert world.fleet.work.ended == ["hold 1", "echo 2"]
        assert journal.of(TaskEnded)[0] == TaskEnded("a", "first", TaskOutcome.COMPLETED)
        world.nothing_is_held()


async def test_abandoned_task_keeps_its_device_busy_for_at_most_the_abandon_timeout(autojump_clock: MockClock) -> None:
    async with open_world("a", abandon_timeout=200) as world, recording(world.constellation) as journal:
        async with trio.open_nursery() as nursery:
            first = await start(nursery, partial(world.a.run_task, "hold 1", on_cancel="abandon", task_id="first"))
            await _cancel(first)
            second = await start(nursery, partial(world.a.run_task, "echo 2"))
            await trio.sleep(199)
            assert not second.ended.is_set()
            await trio.sleep(2)
            assert second.ended.is_set()
        [ended, _] = journal.of(TaskEnded)
        assert ended == TaskEnded("a", "first", TaskOutcome.UNKNOWN, "it did not end within 200 s")


async def test_abandoned_task_releases_its_slot_when_the_connection_is_lost(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery, recording(world.constellation) as journal:
        first = await start(nursery, partial(world.a.run_task, "hold 1", on_cancel="abandon", task_id="first"))
        await _cancel(first)
        second = await start(nursery, partial(world.a.run_task, "echo 2"))
        world.streams[0].reset()
        await second.ended.wait()
        assert second.echo == "2"
        await trio.testing.wait_all_tasks_blocked()
        assert [event.outcome for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)] == [
            TaskOutcome.LOST,
            TaskOutcome.COMPLETED,
        ]
        assert world.fleet.work.cancelled == ["hold 1"]


async def test_device_is_checked_after_an_abandoned_task_failed_and_before_the_next_one(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        first = await start(nursery, partial(world.a.run_task, "hold 1", on_cancel="abandon"))
        await _cancel(first)
        await world.fleet.remove_device("a")
        assert world.a.status is DeviceStatus.DISCONNECTED
        second = await start(nursery, partial(world.a.run_task, "echo 2"))
        await trio.sleep(100)
        assert not second.ended.is_set()
        await world.fleet.add_device("a")
        await second.ended.wait()
        assert world.begun == ["hold 1", "echo 2"]


async def test_other_slots_run_tasks_while_an_abandoned_task_holds_one(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=2)) as world, trio.open_nursery() as nursery:
        first = await start(nursery, partial(world.a.run_task, "hold 1", on_cancel="abandon"))
        await _cancel(first)
        for number in range(3):
            assert (await world.a.run_task(f"echo {number}")).unwrap()
        assert world.a.running == 1
        assert world.fleet.work.most == {"a": 2}
        world.fleet.work.release("1")
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()
