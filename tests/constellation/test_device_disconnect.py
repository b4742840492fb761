"""Disconnecting and reconnecting a device while tasks run and wait on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionLost
from galaxy_trio.events import DeviceStatus, StatusChanged, TaskAbandoned, TaskEnded, TaskOutcome
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from trio.testing import MockClock

IDLE, BUSY, DISCONNECTED, FAILED = DeviceStatus.IDLE, DeviceStatus.BUSY, DeviceStatus.DISCONNECTED, DeviceStatus.FAILED


async def test_disconnecting_stops_running_tasks_and_queued_tasks_continue_to_wait(autojump_clock: MockClock) -> None:
    async with (
        open_world(device_config("a", max_concurrent_tasks=2)) as world,
        trio.open_nursery() as nursery,
        recording(world.constellation) as journal,
    ):
        own = await start(nursery, partial(world.a.run_task, "hold 1", task_id="1"))
        shared = await start(nursery, partial(world.a.run_task, "hold 2", task_id="2", on_cancel="abandon"))
        waiting = await start(nursery, partial(world.a.run_task, "echo 3", task_id="3"))
        await world.a.disconnect()
        assert world.a.status is DISCONNECTED
        assert world.connections == 1
        for call in (own, shared):
            assert isinstance(call.ending, ConnectionLost)
            assert str(call.ending) == "device 'a' was lost: this side disconnected it"
        assert sorted(world.fleet.work.cancelled) == ["hold 1", "hold 2"]
        await trio.sleep(1000)
        assert not waiting.ended.is_set()
        await world.a.connect()
        await waiting.ended.wait()
        assert waiting.echo == "3"
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()
        ended = [event for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)]
        assert {event.task_id: event.outcome for event in ended} == {
            "1": TaskOutcome.LOST,
            "2": TaskOutcome.LOST,
            "3": TaskOutcome.COMPLETED,
        }
        assert len(ended) == 3
        assert journal.of(TaskAbandoned) == []


async def test_task_granted_a_slot_in_the_step_of_a_disconnection_waits_in_it(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        async with world.a.reserve():
            waiting = await start(nursery, partial(world.a.run_task, "echo 1"))
        with trio.fail_after(10):
            await world.a.disconnect()
        await trio.sleep(100)
        assert not waiting.ended.is_set()
        assert (world.begun, world.connections) == ([], 1)
        await world.a.connect()
        await waiting.ended.wait()
        assert waiting.echo == "1"


async def test_concurrent_disconnects_all_return_and_end_an_abandoned_task(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        async with trio.open_nursery() as nursery, recording(world.constellation) as journal:
            task = await start(nursery, partial(world.a.run_task, "hold 1", on_cancel="abandon"))
            task.scope.cancel()
            await task.ended.wait()
            for _ in range(3):
                nursery.start_soon(world.a.disconnect)
        [ended] = journal.of(TaskEnded)
        assert isinstance(ended, TaskEnded)
        assert ended.outcome is TaskOutcome.LOST
        assert (world.a.status, world.a.running) == (DISCONNECTED, 0)


async def test_reconnecting_does_not_stop_tasks_on_their_own_connections(autojump_clock: MockClock) -> None:
    async with (
        open_world(device_config("a", max_concurrent_tasks=2)) as world,
        trio.open_nursery() as nursery,
        recording(world.constellation) as journal,
    ):
        own = await start(nursery, partial(world.a.run_task, "hold 1"))
        shared = await start(nursery, partial(world.a.run_task, "hold 2", on_cancel="abandon"))
        waiting = await start(nursery, partial(world.a.run_task, "echo 3"))
        began = len(journal.of(StatusChanged))
        await world.a.reconnect()
        assert world.a.status is BUSY
        await shared.ended.wait()
        assert isinstance(shared.ending, ConnectionLost)
        await waiting.ended.wait()
        assert waiting.echo == "3"
        world.fleet.work.release("1")
        await own.ended.wait()
        assert own.echo == "1"
        await trio.testing.wait_all_tasks_blocked()
        seen = [event.status for event in journal.of(StatusChanged)[began:] if isinstance(event, StatusChanged)]
        # No task uses a connection that is being closed.
        assert [status for status in seen if status in (IDLE, BUSY)] == [BUSY, IDLE]
        world.nothing_is_held()


async def test_nothing_is_sent_on_a_connection_that_is_being_closed(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        begun = trio.Event()

        async def reconnect() -> None:
            begun.set()
            await world.a.reconnect()

        nursery.start_soon(reconnect)
        # A task that is submitted in the next step waits for the next connection.
        await begun.wait()
        result = await world.a.run_task("echo 1", on_cancel="abandon")
        assert result.unwrap()
        assert world.begun == ["echo 1"]


async def test_device_that_is_given_up_fails_all_calls_with_the_reason_until_it_reconnects(
    autojump_clock: MockClock,
) -> None:
    config = device_config("a", max_retries=0)
    async with open_world(config) as world, trio.open_nursery() as nursery:
        device = world.a
        holder = await start(nursery, partial(device.run_task, "hold 1"))
        waiting = [await start(nursery, partial(device.run_task, "echo")) for _ in range(2)]
        info = await start(nursery, partial(device.wait_status, FAILED))
        await world.fleet.stop_server()
        await holder.ended.wait()
        await info.ended.wait()
        assert (info.ending, device.status) == (FAILED, FAILED)
        failure = device.failure
        assert failure is not None
        for call in waiting:
            assert isinstance(call.ending, ConnectFailed | ConnectionLost)
            assert str(call.ending) == str(failure)
            assert call.ending is not failure
        assert waiting[0].ending is not waiting[1].ending
        for refused in (device.run_task("echo"), device.device_info(), device.wait_connected()):
            with pytest.raises(type(failure)) as caught:
                await refused
            assert caught.value is not failure
        with pytest.raises(type(failure)):
            async with device.reserve():
                raise AssertionError
        await world.fleet.start_server()
        await world.fleet.add_device("a")
        await device.reconnect()
        assert (device.status, device.failure) == (IDLE, None)
        assert (await device.run_task("echo 2")).unwrap()
