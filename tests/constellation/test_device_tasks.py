"""Tasks of one device: first in, first out in all of its slots; tasks that complete, fail, are refused, or cannot be sent."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionLost, ConnectionOptions, QueueFull, RequestRejected, TaskFailed
from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio.errors import MessageTooLarge
from galaxy_trio.events import DeviceStatus, TaskAcknowledged, TaskEnded, TaskOutcome, TaskQueued, TaskSubmitted
from galaxy_trio.server import ServerLimits
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("slots", [1, 3])
async def test_tasks_run_first_in_first_out_in_all_slots(slots: int, autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=slots)) as world:
        device = world.a
        async with trio.open_nursery() as nursery:
            calls = [await start(nursery, partial(device.run_task, f"hold {number}")) for number in range(7)]
            for number in range(7):
                assert world.begun == [f"hold {begun}" for begun in range(min(number + slots, 7))]
                assert (device.running, device.queued) == (min(slots, 7 - number), max(0, 7 - number - slots))
                assert device.status is DeviceStatus.BUSY
                world.fleet.work.release(str(number))
                await calls[number].ended.wait()
                await trio.testing.wait_all_tasks_blocked()
        assert [call.echo for call in calls] == [str(number) for number in range(7)]
        assert world.fleet.work.most == {"a": slots}
        assert device.status is DeviceStatus.IDLE
        world.nothing_is_held()


async def test_full_queue_refuses_immediately_and_sends_and_publishes_nothing(autojump_clock: MockClock) -> None:
    async with open_world("a", max_queued=2) as world, trio.open_nursery() as nursery:
        device = world.a
        for number in range(3):
            await start(nursery, partial(device.run_task, f"hold {number}"))
        async with recording(world.constellation) as journal:
            with pytest.raises(
                QueueFull, match=r"^the queue of device 'a' is full, with 2 tasks: this one was not taken; wait"
            ):
                await device.run_task("echo", task_id="one too many")
            with pytest.raises(QueueFull):
                async with device.reserve():
                    raise AssertionError
        assert journal.events == []
        world.fleet.work.release("0", "1", "2")


async def test_nursery_start_returns_the_task_id_when_the_server_has_accepted_the_task(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        assert await nursery.start(partial(device.run_task, "hold 1", task_id="first")) == "first"
        assert world.begun == ["hold 1"]
        world.fleet.work.release("1")
        await nursery.start(partial(device.run_task, "echo 2"))
        assert world.begun == ["hold 1", "echo 2"]


async def test_events_of_a_task_are_in_order_and_its_end_is_published_once(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        device = world.a
        async with recording(world.constellation) as journal:
            await device.run_task("echo", task_id="well")
            await device.run_task("fail it went wrong", task_id="badly")
        published = [
            event for event in journal.events if isinstance(event, TaskQueued | TaskSubmitted | TaskAcknowledged)
        ]
        for task_id in ("well", "badly"):
            kinds = [type(event) for event in published if event.task_id == task_id]
            assert kinds == [TaskQueued, TaskSubmitted, TaskAcknowledged]
        assert journal.of(TaskEnded) == [
            TaskEnded("a", "well", TaskOutcome.COMPLETED),
            TaskEnded("a", "badly", TaskOutcome.FAILED, "it went wrong"),
        ]


async def test_failed_task_is_a_result_and_the_device_runs_the_next_one(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        device = world.a
        result = await device.run_task("fail it went wrong")
        with pytest.raises(TaskFailed, match="it went wrong"):
            result.unwrap()
        assert (await device.run_task("echo 2")).unwrap()
        assert device.status is DeviceStatus.IDLE
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


async def test_next_task_waits_for_the_check_of_the_device_after_a_failed_task(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        first = await start(nursery, partial(device.run_task, "hold 1"))
        second = await start(nursery, partial(device.run_task, "echo 2"))
        # Its sessions are cancelled and fail. The device returns later.
        await world.fleet.remove_device("a")
        assert first.ended.is_set()
        assert device.status is DeviceStatus.DISCONNECTED
        await trio.sleep(100)
        assert world.begun == ["hold 1"]
        await world.fleet.add_device("a")
        await second.ended.wait()
        assert second.echo == "2"


async def test_refused_task_never_ran_and_the_next_one_runs(autojump_clock: MockClock) -> None:
    limits = ServerLimits(max_sessions=1)
    async with open_world(device_config("a", max_concurrent_tasks=2), limits=limits) as world:
        device = world.a
        async with trio.open_nursery() as nursery, recording(world.constellation) as journal:
            # On the shared connection, for which the server allows one session.
            held = await start(nursery, partial(device.run_task, "hold 1", on_cancel="abandon"))
            with pytest.raises(RequestRejected, match=r"refused the task for device 'a'.* sessions already") as caught:
                await device.run_task("echo 2", on_cancel="abandon", task_id="refused")
            assert "sessions already" in caught.value.words
            await trio.testing.wait_all_tasks_blocked()
            assert journal.of(TaskEnded) == [TaskEnded("a", "refused", TaskOutcome.REJECTED, str(caught.value))]
            world.fleet.work.release("1")
            await held.ended.wait()
        assert world.begun == ["hold 1"]
        assert (await device.run_task("echo 3", on_cancel="abandon")).unwrap()
        world.nothing_is_held()


@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
async def test_task_that_cannot_be_sent_does_not_affect_other_tasks(on_cancel: str, autojump_clock: MockClock) -> None:
    async with open_world("a", options=ConnectionOptions(max_message_size=10_000)) as world:
        device = world.a
        async with recording(world.constellation) as journal:
            with pytest.raises(MessageTooLarge):
                await device.run_task("x" * 20_000, on_cancel=on_cancel, task_id="big")  # type: ignore[arg-type]
        [ended] = journal.of(TaskEnded)
        assert isinstance(ended, TaskEnded)
        assert ended.outcome is TaskOutcome.NOT_SENT
        assert journal.of(TaskSubmitted) == []
        assert (await device.run_task("echo 2")).unwrap()
        world.nothing_is_held()


async def test_invalid_arguments_are_refused_before_anything_is_queued(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, recording(world.constellation) as journal:
        device = world.a
        with pytest.raises(ValueError, match=r"^on_cancel is 'stop' or 'abandon', not 'wait'$"):
            await device.run_task("echo", on_cancel="wait")  # type: ignore[arg-type]
        for timeout in (-1, math.nan):
            with pytest.raises(ValueError, match=r"^a timeout is a number of seconds or math.inf, not "):
                await device.run_task("echo", timeout=timeout)
        with pytest.raises(ConfigError, match="task_id"):
            await device.run_task("echo", task_id="")
        world.nothing_is_held()
    assert journal.events == []


async def test_task_that_runs_when_its_connection_is_lost_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        async with recording(world.constellation) as journal:
            first = await start(nursery, partial(device.run_task, "hold 1", task_id="1"))
            second = await start(nursery, partial(device.run_task, "hold 2", task_id="2", on_cancel="abandon"))
            third = await start(nursery, partial(device.run_task, "echo 3", task_id="3"))
            world.streams[-1].reset()
            await first.ended.wait()
            assert isinstance(first.ending, ConnectionLost)
            await trio.testing.wait_all_tasks_blocked()
            assert world.begun == ["hold 1", "hold 2"]
            # The shared connection, on which the second task runs.
            world.streams[0].reset()
            await second.ended.wait()
            assert isinstance(second.ending, ConnectionLost)
            await third.ended.wait()
            assert third.echo == "3"
        assert [(event.task_id, event.outcome) for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)] == [
            ("1", TaskOutcome.LOST),
            ("2", TaskOutcome.LOST),
            ("3", TaskOutcome.COMPLETED),
        ]
        assert world.begun == ["hold 1", "hold 2", "echo 3"]


async def test_statistics_are_ready_for_json(autojump_clock: MockClock) -> None:
    async with open_world("a", device_config("b", auto_connect=False)) as world:
        async with trio.open_nursery() as nursery:
            device = world.a
            await start(nursery, partial(device.run_task, "hold 1"))
            await start(nursery, partial(device.run_task, "echo 2"))
            statistics = world.constellation.statistics()
            assert (statistics.running, statistics.queued, statistics.unassigned) == (1, 1, 0)
            a, b = statistics.devices.values()
            assert (a.running, a.queued, a.status, a.connects) == (1, 1, DeviceStatus.BUSY, 1)
            assert (b.running, b.queued, b.status, b.connects) == (0, 0, DeviceStatus.DISCONNECTED, 0)
            world.fleet.work.release("1")
        assert isinstance(unstructure_statistics(statistics), dict)
