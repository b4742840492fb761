"""A device's connection pool: reuse of connections, expiry, and connections that must not be reused."""

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
    """Return the client ids of the slots' connections on the server, without the random part."""
    assert world.fleet.server is not None
    names = [re.sub(r"^galaxy_trio-[0-9a-f]{6}|@a$", "", name) for name in world.fleet.server.constellations]
    return sorted(name for name in names if name)


def connects(world: World) -> int:
    """Count the connections that were opened for tasks so far."""
    return len(world.streams) - len(world.constellation.devices)


async def test_consecutive_tasks_use_the_same_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for number in range(10):
            result = await world.a.run_task(f"echo {number}")
            assert result.unwrap() == {"device": "a", "echo": str(number)}
            assert world.a.statistics().idle_connections == 1
        assert connects(world) == 1
        world.nothing_is_held()


async def test_connection_of_a_failed_task_is_used_again(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("fail")
        assert (await world.a.run_task("echo x")).unwrap()
        assert connects(world) == 1


async def test_each_slot_has_its_own_connection(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=3)) as world:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(world.a.run_task, f"echo {number}")
            assert pooled(world) == [".0", ".1", ".2"]
        assert connects(world) == 3
        assert world.a.statistics().idle_connections == 3


async def test_tasks_of_constellations_and_reservations_use_the_pool(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.constellation.run_task("echo 1")
        async with world.a.reserve() as reservation:
            await reservation.run_task("echo 2")
            await reservation.run_task("echo 3")
        assert connects(world) == 1


async def test_idle_connection_expires_and_the_next_one_has_a_new_client_id(
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


async def test_task_does_not_wait_for_the_close_of_an_expired_connection(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        # The close handshake times out after 3 s.
        await trio.sleep(6)
        assert (world.a.statistics().idle_connections, world.streams[-1].closed) == (0, False)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert trio.current_time() == began
        assert world.streams[-2].closed


async def test_connection_that_expires_in_the_step_of_a_task_is_not_used(autojump_clock: MockClock) -> None:
    async with open_world("a", keepalive_expiry=5) as world:
        await world.a.run_task("echo 1")
        # The expiry and the task happen in the same step, in either order.
        await trio.sleep(5)
        assert (await world.a.run_task("echo 2")).unwrap()
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_connection_lost_before_its_first_task_is_replaced(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:

        async def write_down(_: str) -> None:
            if len(world.streams) == 2:
                world.streams[-1].reset()
                await trio.sleep(1)

        assert (await world.a.run_task("echo 1", before_sending=write_down)).unwrap()
        assert (connects(world), world.begun) == (2, ["echo 1"])


async def test_no_task_starts_on_a_connection_older_than_a_minute(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(20):
            await world.a.run_task("echo")
            # At other times than heartbeats and pings.
            await trio.sleep(4.1)
        # Opened at 0 s and at 60 s.
        assert connects(world) == 2


async def test_connection_runs_no_more_tasks_than_it_remembers(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(MAX_TASKS):
            await world.a.run_task("echo")
        assert (connects(world), pooled(world)) == (1, [])
        await world.a.run_task("echo")
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_keepalive_expiry_of_0_closes_each_connection_before_the_call_returns(
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
async def test_invalid_keepalive_expiry_is_refused(keepalive_expiry: float) -> None:
    with pytest.raises(ConfigError, match=r"^keepalive_expiry must be a number of seconds, not"):
        async with open_constellation([device_config("a")], keepalive_expiry=keepalive_expiry):
            raise AssertionError


async def test_connection_of_a_cancelled_task_is_closed_before_the_slot_is_free_and_keeps_its_client_id(
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


async def test_connection_of_a_task_that_timed_out_is_closed_and_keeps_its_client_id(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        with pytest.raises(RequestTimeout):
            await world.a.run_task("wait", timeout=7)
        await trio.testing.wait_all_tasks_blocked()
        assert (world.fleet.work.cancelled, pooled(world)) == (["wait"], [])
        await world.a.run_task("echo 2")
        assert (connects(world), pooled(world)) == (2, [".0"])


async def test_task_with_an_id_that_was_used_on_a_connection_gets_another_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        for _ in range(2):
            await world.a.run_task("echo", task_id="the same")
        assert (connects(world), pooled(world)) == (2, [".0.1"])


async def test_reset_of_an_idle_connection_fails_no_task(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        # In the step before the task: only the socket shows it.
        world.streams[-1].reset()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert world.begun == ["echo 1", "echo 2"]
        assert connects(world) == 2


async def test_ping_finds_out_that_the_network_has_cut_an_idle_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        await trio.sleep(1.5)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
        assert world.begun == ["echo 1", "echo 2"]
        # The server still has the silent connection, and no session on it.
        assert pooled(world) == [".0", ".0.1"]


async def test_idle_connection_that_answers_a_ping_is_used(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        await trio.sleep(4)
        began = trio.current_time()
        assert (await world.a.run_task("echo 2")).unwrap()
        assert (connects(world), trio.current_time()) == (1, began)


async def test_task_cancelled_during_the_ping_was_not_sent(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        await world.a.run_task("echo 1")
        world.streams[-1].go_silent()
        await trio.sleep(1.5)
        call = await start(nursery, partial(world.a.run_task, "echo 2"))
        call.scope.cancel()
        await call.ended.wait()
        assert (call.cancelled, world.begun, world.a.running) == (True, ["echo 1"], 0)
        assert world.streams[-1].closed


async def test_loss_during_before_sending_is_noticed_right_before_sending(
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


async def test_connection_does_not_expire_during_before_sending(autojump_clock: MockClock) -> None:
    async with open_world("a", keepalive_expiry=3) as world:

        async def write_down(_: str) -> None:
            await trio.sleep(19)

        await world.a.run_task("echo 1")
        assert (await world.a.run_task("echo 2", before_sending=write_down)).unwrap()
        assert connects(world) == 1


async def test_server_may_close_an_idle_connection(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
        await world.fleet.stop_server()
        await world.fleet.start_server()
        await world.fleet.add_device("a")
        assert (await world.a.run_task("echo 2")).unwrap()
        assert world.begun == ["echo 1", "echo 2"]
        assert pooled(world) == [".0.1"]


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


async def test_connection_in_use_during_a_reconnect_is_closed_after_its_task(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        call = await start(nursery, partial(world.a.run_task, "hold 1"))
        await world.a.reconnect()
        world.fleet.work.release("1")
        await call.ended.wait()
        assert call.echo == "1"
        await trio.testing.wait_all_tasks_blocked()
        assert pooled(world) == []
        await world.a.run_task("echo 2")
        assert pooled(world) == [".0.1"]


async def test_connection_of_the_last_task_of_a_removed_device_is_closed(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        device = world.a
        await start(nursery, partial(device.run_task, "hold 1"))
        nursery.start_soon(world.constellation.remove_device, "a")
        await trio.testing.wait_all_tasks_blocked()
        world.fleet.work.release("1")
        await trio.testing.wait_all_tasks_blocked()
        assert (device.statistics().idle_connections, pooled(world)) == (0, [])


async def test_end_of_the_constellation_closes_idle_connections(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        await world.a.run_task("echo 1")
    assert all(stream.closed for stream in world.streams)


async def test_cancelling_the_constellation_closes_idle_connections(autojump_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with open_world("a") as world:
            await world.a.run_task("echo 1")
            scope.cancel()
    assert all(stream.closed for stream in world.streams)
