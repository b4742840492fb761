"""A device's connection pool: which tasks share a connection, when an idle one is closed, and when it is not used again."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, RequestTimeout
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.constellation.pool import MAX_TASKS
from tests.constellation.support.calls import World, open_world, start
from tests.constellation.support.fleet import device_config

if TYPE_CHECKING:
    from trio.testing import MockClock


def pooled(world: World) -> list[str]:
    """The names of the slots' connections that the server has, without the random part."""
    assert world.fleet.server is not None
    names = [re.sub(r"^galaxy_trio-[0-9a-f]{6}|@a$", "", name) for name in world.fleet.server.constellations]
    return sorted(name for name in names if name)


def connects(world: World) -> int:
    """How many connections were opened for tasks so far."""
    return len(world.streams) - len(world.constellation.devices)


async def test_one_task_after_the_other_uses_the_same_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for number in range(10):
            result = await world.a.run_task(f"echo {number}")
            assert result.unwrap() == {"device": "a", "echo": str(number)}
            assert world.a.statistics().idle_connections == 1
        assert connects(world) == 1
        world.nothing_is_held()


async def test_a_task_that_failed_leaves_a_connection_that_can_be_used_again(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("fail")
        assert (await world.a.run_task("echo x")).unwrap()
        assert connects(world) == 1


async def test_each_slot_has_a_connection_and_keeps_one(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=3)) as world:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(world.a.run_task, f"echo {number}")
            assert pooled(world) == [".0", ".1", ".2"]
        assert connects(world) == 3
        assert world.a.statistics().idle_connections == 3


async def test_tasks_of_constellations_and_reservations_use_the_pool_too(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.constellation.run_task("echo 1")
        async with world.a.reserve() as reservation:
            await reservation.run_task("echo 2")
            await reservation.run_task("echo 3")
        assert connects(world) == 1


async def test_an_idle_connection_is_closed_after_its_time_and_the_next_one_has_a_new_name(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", keepalive_expiry=20) as world:
        await world.a.run_task("echo 1")
        await trio.sleep(19)
        assert pooled(world) == [".0"]
        await world.a.run_task("echo 2")
        await trio.sleep(19)
        assert pooled(world) == [".0"]
        await trio.sleep(2)
        assert pooled(world) == []
        assert world.a.statistics().idle_connections == 0
        await world.a.run_task("echo 3")
        assert pooled(world) == [".0.1"]


async def test_a_task_that_comes_while_an_expired_connection_is_being_closed_does_not_wait_for_that(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        # It takes 3 s to give up the close handshake.
        await trio.sleep(6)
        assert (world.a.statistics().idle_connections, world.streams[-1].closed) == (0, False)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert trio.current_time() == began
        assert world.streams[-2].closed


async def test_a_connection_that_expires_in_the_step_of_a_task_is_not_used(autojump_clock: MockClock) -> None:
    async with open_world("a", keepalive_expiry=5) as world:
        await world.a.run_task("echo 1")
        # Both have their time in the same step, in either order.
        await trio.sleep(5)
        assert (await world.a.run_task("echo 2")).unwrap()
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_a_connection_that_is_lost_before_its_first_task_is_sent_is_replaced(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:

        async def write_down(_: str) -> None:
            if len(world.streams) == 2:
                world.streams[-1].reset()
                await trio.sleep(1)

        assert (await world.a.run_task("echo 1", before_sending=write_down)).unwrap()
        assert (connects(world), world.begun) == (2, ["echo 1"])


async def test_no_task_begins_on_a_connection_that_is_older_than_a_minute(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(20):
            await world.a.run_task("echo")
            # Not in step with heartbeats and pings.
            await trio.sleep(4.1)
        # At 0, 60 and not before.
        assert connects(world) == 2


async def test_a_connection_runs_no_more_tasks_than_it_remembers(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(MAX_TASKS):
            await world.a.run_task("echo")
        assert (connects(world), pooled(world)) == (1, [])
        await world.a.run_task("echo")
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_without_a_keepalive_expiry_each_task_has_a_connection_that_is_closed_when_its_call_returns(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", keepalive_expiry=0) as world:
        for number in range(3):
            await world.a.run_task(f"echo {number}")
            assert world.a.statistics().idle_connections == 0
            await trio.testing.wait_all_tasks_blocked()
            assert pooled(world) == []
        assert connects(world) == 3


@pytest.mark.parametrize("keepalive_expiry", [-1, float("nan")])
async def test_a_keepalive_expiry_that_is_no_time_is_refused(keepalive_expiry: float) -> None:
    with pytest.raises(ConfigError, match=r"^keepalive_expiry must be a number of seconds, not"):
        async with open_constellation([device_config("a")], keepalive_expiry=keepalive_expiry):
            raise AssertionError


# After these, it is not used again.


async def test_a_connection_whose_task_was_cancelled_is_closed_before_the_slot_is_free_and_keeps_its_name(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 1")
        call = await start(nursery, partial(world.a.run_task, "wait"))
        assert connects(world) == 1
        call.scope.cancel()
        await call.ended.wait()
        assert world.streams[-1].closed
        assert world.a.running == 0
        await trio.testing.wait_all_tasks_blocked()
        assert (world.fleet.work.cancelled, pooled(world)) == (["wait"], [])
        await world.a.run_task("echo 2")
        assert (connects(world), pooled(world)) == (2, [".0"])


async def test_a_connection_whose_task_timed_out_is_closed_and_keeps_its_name(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        with pytest.raises(RequestTimeout):
            await world.a.run_task("wait", timeout=7)
        await trio.testing.wait_all_tasks_blocked()
        assert (world.fleet.work.cancelled, pooled(world)) == (["wait"], [])
        await world.a.run_task("echo 2")
        assert (connects(world), pooled(world)) == (2, [".0"])


async def test_a_task_whose_id_was_used_on_a_connection_gets_another_one(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(2):
            await world.a.run_task("echo", task_id="the same")
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_an_idle_connection_that_is_reset_costs_no_task_anything(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        # In the step before the task: nothing but the socket knows of it.
        world.streams[-1].reset()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert world.begun == ["echo 1", "echo 2"]
        assert connects(world) == 2


async def test_an_idle_connection_that_the_network_has_cut_is_found_out_by_a_ping(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        await trio.sleep(1.5)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
        assert world.begun == ["echo 1", "echo 2"]
        # The server still has the silent one, and no session runs there.
        assert pooled(world) == [".0", ".0.1"]


async def test_an_idle_connection_that_answers_a_ping_is_used(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        await trio.sleep(4)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert (connects(world), trio.current_time()) == (1, began)


async def test_a_task_that_is_cancelled_while_the_ping_is_not_answered_was_not_sent(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        await trio.sleep(1.5)
        call = await start(nursery, partial(world.a.run_task, "echo 2"))
        call.scope.cancel()
        await call.ended.wait()
        assert (call.cancelled, world.begun, world.a.running) == (True, ["echo 1"], 0)
        assert world.streams[-1].closed


async def test_what_happens_while_the_caller_prepares_is_noticed_right_before_sending(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world:

        async def write_down(device_id: str) -> None:
            assert device_id == "a"
            await trio.sleep(4)
            world.streams[-1].reset()

        await world.a.run_task("echo 1")
        assert (await world.a.run_task("echo 2", before_sending=write_down)).unwrap()
        assert world.begun == ["echo 1", "echo 2"]


async def test_an_idle_connection_does_not_expire_while_its_next_task_is_prepared(autojump_clock: MockClock) -> None:
    async with open_world("a", keepalive_expiry=3) as world:

        async def write_down(_: str) -> None:
            await trio.sleep(19)

        await world.a.run_task("echo 1")
        assert (await world.a.run_task("echo 2", before_sending=write_down)).unwrap()
        assert connects(world) == 1


async def test_the_server_may_close_an_idle_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        await world.fleet.stop_server()
        await world.fleet.start_server()
        await world.fleet.add_device("a")
        assert (await world.a.run_task("echo 2")).unwrap()
        assert world.begun == ["echo 1", "echo 2"]
        assert pooled(world) == [".0.1"]


# Their end.


@pytest.mark.parametrize("what", ["disconnect", "reconnect", "remove"])
async def test_idle_connections_are_closed_with_their_device(what: str, autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=2)) as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.a.run_task, "echo 1")
            nursery.start_soon(world.a.run_task, "echo 2")
        assert pooled(world) == [".0", ".1"]
        device = world.a
        match what:
            case "disconnect":
                await device.disconnect()
            case "reconnect":
                await device.reconnect()
            case _:
                await world.constellation.remove_device("a")
        assert device.statistics().idle_connections == 0
        await trio.testing.wait_all_tasks_blocked()
        assert pooled(world) == []


async def test_a_device_that_is_reconnected_while_a_task_runs_keeps_its_connection_no_longer_than_the_task(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        call = await start(nursery, partial(world.a.run_task, "hold 1"))
        await world.a.reconnect()
        world.fleet.work.let_go("1")
        await call.ended.wait()
        assert call.echo == "1"
        await trio.testing.wait_all_tasks_blocked()
        assert pooled(world) == []
        await world.a.run_task("echo 2")
        assert pooled(world) == [".0.1"]


async def test_a_device_that_is_removed_keeps_no_connection_of_its_last_task(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        await start(nursery, partial(device.run_task, "hold 1"))
        nursery.start_soon(world.constellation.remove_device, "a")
        await trio.testing.wait_all_tasks_blocked()
        world.fleet.work.let_go("1")
        await trio.testing.wait_all_tasks_blocked()
        assert (device.statistics().idle_connections, pooled(world)) == (0, [])


async def test_the_end_of_a_constellation_closes_its_idle_connections(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
    assert all(stream.closed for stream in world.streams)


async def test_the_cancellation_of_a_constellation_closes_its_idle_connections(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with open_world("a") as world:
            await world.a.run_task("echo 1")
            scope.cancel()
    assert all(stream.closed for stream in world.streams)
