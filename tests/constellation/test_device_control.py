"""Disconnecting, reconnecting and removing a device while tasks run and wait; its status and its information."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectFailed, ConnectionLost, DeviceInfo, NoSuchDevice, RequestTimeout
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceStatus, StatusChanged, TaskAbandoned, TaskEnded, TaskOutcome
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import open_scripted_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

IDLE, BUSY, DISCONNECTED, FAILED = (
    DeviceStatus.IDLE,
    DeviceStatus.BUSY,
    DeviceStatus.DISCONNECTED,
    DeviceStatus.FAILED,
)


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
        world.fleet.work.let_go("1")
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


async def test_connect_tries_a_device_that_was_given_up(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_retries=0)) as world:
        await world.fleet.stop_server()
        await world.a.wait_status(FAILED)
        with pytest.raises(ConnectFailed):
            await world.a.connect()
        assert world.a.status is FAILED
        await world.fleet.start_server()
        await world.fleet.add_device("a")
        await world.a.connect()
        assert world.a.status is IDLE


@pytest.mark.parametrize("wait", [True, False])
async def test_removing_a_device_fails_queued_tasks_immediately_and_waits_for_running_ones_or_stops_them(
    wait: bool, autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        running = await start(nursery, partial(device.run_task, "hold 1"))
        queued = await start(nursery, partial(device.run_task, "echo 2"))
        status = await start(nursery, partial(device.wait_status, FAILED))
        removing = await start(nursery, partial(world.constellation.remove_device, "a", wait=wait))
        assert isinstance(queued.ending, NoSuchDevice)
        assert str(queued.ending) == "device 'a' was removed"
        assert isinstance(status.ending, trio.ClosedResourceError)
        with pytest.raises(NoSuchDevice):
            await device.run_task("echo 3")
        if wait:
            await trio.sleep(500)
            assert not running.ended.is_set()
            world.fleet.work.let_go("1")
        await removing.ended.wait()
        assert removing.ending is None
        if wait:
            assert running.echo == "1"
        else:
            assert isinstance(running.ending, ConnectionLost)
            assert str(running.ending) == "device 'a' was lost: it was removed"
            assert world.fleet.work.cancelled == ["hold 1"]
        assert (device.status, device.running, device.queued) == (DISCONNECTED, 0, 0)
        assert "a" not in world.constellation.devices
        assert world.connections == 1
        for call in (device.wait_connected, device.connect, device.reconnect, partial(device.wait_status, IDLE)):
            with pytest.raises(
                trio.ClosedResourceError, match="device 'a' was removed, or its constellation was closed"
            ):
                await call()
        await device.disconnect()


async def test_task_granted_a_slot_in_the_step_of_a_removal_does_not_start(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        async with world.a.reserve():
            waiting = await start(nursery, partial(world.a.run_task, "wait"))
        with trio.fail_after(10):
            await world.constellation.remove_device("a", wait=False)
        await waiting.ended.wait()
        assert isinstance(waiting.ending, ConnectionLost | NoSuchDevice)
        assert "removed" in str(waiting.ending)
        assert world.begun == []


async def test_cancelled_removal_stops_running_tasks_and_removes_the_device(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        running = await start(nursery, partial(world.a.run_task, "hold 1"))
        removing = await start(nursery, partial(world.constellation.remove_device, "a"))
        removing.scope.cancel()
        await removing.ended.wait()
        assert removing.cancelled
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(running.ending, ConnectionLost)
        assert not world.constellation.devices
        assert world.connections == 1


async def test_device_is_removed_by_two_calls_while_another_one_with_its_id_is_added(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        running = await start(nursery, partial(world.a.run_task, "hold 1"))
        first = await start(nursery, partial(world.constellation.remove_device, "a"))
        second = await start(nursery, partial(world.constellation.remove_device, "a"))
        with pytest.raises(ConfigError, match="there is a device 'a' already: remove it first"):
            world.constellation.add_device(device_config("a"))
        first.scope.cancel()
        await first.ended.wait()
        added = world.constellation.add_device(device_config("a"))
        await second.ended.wait()
        assert running.ended.is_set()
        assert world.constellation.devices == {"a": added}
        await added.wait_connected()
        assert (await world.constellation.run_task("echo 2")).unwrap()
        with pytest.raises(NoSuchDevice, match="there is no device 'b' to be removed"):
            await world.constellation.remove_device("b")


async def test_wait_status_sees_a_status_that_lasts_one_step(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        assert await world.a.wait_status(IDLE, BUSY) is IDLE
        waits = [
            await start(nursery, partial(world.a.wait_status, status))
            for status in (BUSY, DISCONNECTED, DeviceStatus.CONNECTING, DeviceStatus.REGISTERING)
        ]
        cancelled = await start(nursery, partial(world.a.wait_status, FAILED))
        assert (await world.a.run_task("echo")).unwrap()
        await world.a.reconnect()
        assert [wait.ending for wait in waits] == [
            BUSY,
            DISCONNECTED,
            DeviceStatus.CONNECTING,
            DeviceStatus.REGISTERING,
        ]
        cancelled.scope.cancel()
        assert repr(world.a) == "<Device 'a', idle>"


async def test_device_info_asks_the_server_once_the_device_is_connected(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", device_config("b", auto_connect=False)) as world, trio.open_nursery() as nursery:
        info = await world.a.device_info()
        assert (info.device_id, info.platform) == ("a", "linux")
        b = world.constellation.devices["b"]
        with pytest.raises(RequestTimeout, match="no information about device 'b' within 5 s"):
            await b.device_info(timeout=5)
        asked = await start(nursery, partial(b.device_info, timeout=100))
        await b.connect()
        await asked.ended.wait()
        assert asked.ending == await b.device_info()
        assert b.config.device_id == b.device_id == b.profile.device_id == "b"


async def test_device_info_uses_the_next_connection_when_this_side_closes_the_current_one(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server, trio.open_nursery() as nursery:
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await device.wait_connected()
            server.info = [None]
            asking = await start(nursery, partial(device.device_info, timeout=100))
            server.info = [{"platform": "darwin"}]
            await device.disconnect()
            await trio.sleep(50)
            assert not asking.ended.is_set()
            await device.connect()
            await asking.ended.wait()
            assert isinstance(asking.ending, DeviceInfo)
            assert asking.ending.platform == "darwin"


async def _start_connecting(world: World, nursery: trio.Nursery, run_task: Callable[..., Awaitable[object]]) -> Call:
    """Start a task that has a slot, and whose connection the server does not answer."""
    world.problems = [trio.testing.memory_stream_pair()[0]]
    connecting = await start(nursery, partial(run_task, "echo 1", task_id="1"))
    assert not world.problems
    return connecting


async def test_unsent_task_continues_to_wait_when_its_device_is_disconnected(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        connecting = await _start_connecting(world, nursery, world.a.run_task)
        await world.a.disconnect()
        await trio.sleep(10)
        assert not connecting.ended.is_set()
        await world.a.connect()
        await connecting.ended.wait()
        assert connecting.echo == "1"


async def test_unsent_task_moves_to_another_device_when_its_own_is_removed_without_waiting(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", "b") as world, trio.open_nursery() as nursery:
        connecting = await _start_connecting(world, nursery, world.constellation.run_task)
        await world.constellation.remove_device("a", wait=False)
        await connecting.ended.wait()
        assert connecting.echo == "1"


async def test_unsent_task_fails_as_not_sent_when_the_only_device_is_removed_without_waiting(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery, recording(world.constellation) as journal:
        connecting = await _start_connecting(world, nursery, world.a.run_task)
        await world.constellation.remove_device("a", wait=False)
        await connecting.ended.wait()
        assert isinstance(connecting.ending, NoSuchDevice)
        assert str(connecting.ending) == "device 'a' was removed"
        await trio.testing.wait_all_tasks_blocked()
        [ended] = journal.of(TaskEnded)
        assert isinstance(ended, TaskEnded)
        assert ended.outcome is TaskOutcome.NOT_SENT
