"""Removing a device while tasks run and wait on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionLost, NoSuchDevice
from galaxy_trio.events import DeviceStatus
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config

if TYPE_CHECKING:
    from trio.testing import MockClock

IDLE, DISCONNECTED, FAILED = DeviceStatus.IDLE, DeviceStatus.DISCONNECTED, DeviceStatus.FAILED


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
            world.fleet.work.release("1")
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


# In half of the runs the task has its turn before the connection ends.
@pytest.mark.parametrize("_", range(20))
async def test_task_granted_a_slot_in_the_step_of_a_removal_does_not_start(_: int, autojump_clock: MockClock) -> None:
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


async def test_two_removals_of_a_device_both_wait_until_it_is_closed(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await start(nursery, partial(world.constellation.run_task, "wait"))
        first = await start(nursery, partial(world.constellation.remove_device, "a"))
        second = await start(nursery, partial(world.constellation.remove_device, "a"))
        assert not first.ended.is_set()
        world.fleet.work.finish.set()
        await first.ended.wait()
        await second.ended.wait()
        assert (first.ending, second.ending) == (None, None)
        assert not world.constellation.devices
