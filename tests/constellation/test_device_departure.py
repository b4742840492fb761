"""Tasks that are known not to have run are retried: the device has left its server, or a connection cannot be opened."""

from __future__ import annotations

import ssl
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectFailed, ConnectionLost, ConnectionOptions, RequestTimeout
from galaxy_trio._transport.send_buffer import HIGH_WATER_MARK
from galaxy_trio.events import DeviceStatus, StatusChanged, TaskEnded, TaskOutcome, TaskSubmitted
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import LongestWaits

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.task import OnCancel

BOTH_WAYS = pytest.mark.parametrize("on_cancel", ["stop", "abandon"])


@BOTH_WAYS
async def test_refused_task_reveals_that_its_device_left_and_runs_when_it_is_back(
    on_cancel: OnCancel, autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery, recording(world.constellation) as journal:
        await world.fleet.remove_device("a")
        # The server and the supervised connection stay: the departure is not known yet.
        assert world.a.connected
        calls = [
            await start(nursery, partial(world.a.run_task, f"echo {number}", task_id=str(number), on_cancel=on_cancel))
            for number in range(3)
        ]
        assert world.a.status is DeviceStatus.DISCONNECTED
        assert (world.a.running, world.a.queued) == (1, 2)
        problem = world.constellation.statistics().devices["a"].problem
        assert problem is not None
        assert "has left its server" in problem
        await trio.sleep(500)
        assert DeviceStatus.IDLE not in [
            event.status for event in journal.of(StatusChanged) if isinstance(event, StatusChanged)
        ]
        await world.fleet.add_device("a")
        for number, call in enumerate(calls):
            await call.ended.wait()
            assert call.echo == str(number)
        assert world.begun == ["echo 0", "echo 1", "echo 2"]
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()
        ended = [event for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)]
        assert [(event.task_id, event.outcome) for event in ended] == [
            (str(number), TaskOutcome.COMPLETED) for number in range(3)
        ]


@BOTH_WAYS
async def test_on_not_sent_is_awaited_before_a_prepared_task_waits_again(
    on_cancel: OnCancel, autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        # An idle connection, on which the task is sent without a registration that could fail.
        assert (await world.a.run_task("echo 0")).unwrap()
        await world.fleet.remove_device("a")
        calls_made: list[str] = []

        async def prepare(device_id: str) -> None:
            await trio.lowlevel.checkpoint()
            calls_made.append(f"prepare on {device_id}")

        async def withdraw(device_id: str) -> None:
            await trio.lowlevel.checkpoint()
            calls_made.append(f"not sent to {device_id}")

        run = partial(world.a.run_task, on_cancel=on_cancel, before_sending=prepare, on_not_sent=withdraw)
        call = await start(nursery, partial(run, "echo 1"))
        assert calls_made == ["prepare on a", "not sent to a"]
        await trio.sleep(100)
        assert calls_made == ["prepare on a", "not sent to a"]
        await world.fleet.add_device("a")
        await call.ended.wait()
        assert call.echo == "1"
        assert calls_made == ["prepare on a", "not sent to a", "prepare on a"]


async def test_exception_of_on_not_sent_is_raised_and_the_task_never_runs(
    autojump_clock: MockClock,
) -> None:
    async def prepare(_device_id: str) -> None:
        await trio.lowlevel.checkpoint()

    async def withdraw(_device_id: str) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("it goes elsewhere")

    async with open_world("a") as world:
        assert (await world.a.run_task("echo 0")).unwrap()
        await world.fleet.remove_device("a")
        with pytest.raises(ValueError, match="it goes elsewhere"):
            await world.a.run_task("echo 1", before_sending=prepare, on_not_sent=withdraw)
        await world.fleet.add_device("a")
        assert (await world.a.run_task("echo 2")).unwrap()
        assert world.begun == ["echo 0", "echo 2"]
        world.nothing_is_held()


async def test_failed_task_reveals_that_its_device_left(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        first = await start(nursery, partial(world.a.run_task, "hold 1"))
        await world.fleet.remove_device("a")
        assert first.ended.is_set()
        assert (world.a.status, world.a.running) == (DeviceStatus.DISCONNECTED, 0)
        await world.fleet.add_device("a")
        await world.a.wait_connected()
        assert (await world.a.run_task("echo 2")).unwrap()


async def test_departed_device_is_chosen_for_no_task(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world:
        # It has been idle for longest, and would be chosen.
        await world.fleet.remove_device("a")
        for number in range(5):
            result = await world.constellation.run_task(f"echo {number}")
            assert (result.device_id, result.unwrap()) == ("b", {"device": "b", "echo": str(number)})
        assert len(world.begun) == 5
        # One connection of the device, and one for all of its tasks.
        assert [device_id for _, device_id in world.fleet.connects].count("b") == 2


async def test_task_that_was_refused_and_then_cancelled_ends_as_not_sent(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, recording(world.constellation) as journal:
        await world.fleet.remove_device("a")
        async with trio.open_nursery() as nursery:
            call = await start(nursery, partial(world.a.run_task, "echo", on_cancel="abandon", task_id="it"))
            assert journal.of(TaskSubmitted) == [TaskSubmitted("a", "it")]
            await world.constellation.remove_device("a")
            await call.ended.wait()
        assert "device 'a' was removed" in str(call.ending)
        await trio.testing.wait_all_tasks_blocked()
        [ended] = journal.of(TaskEnded)
        assert isinstance(ended, TaskEnded)
        assert ended.outcome is TaskOutcome.NOT_SENT


@pytest.mark.parametrize("how", ["device", "constellation"])
@pytest.mark.parametrize(("delay", "seconds"), [(1, 1 + 2 + 4), (90, 90 + 90 + 90)])
async def test_task_whose_connection_fails_to_open_has_its_own_backoff(
    how: str, delay: float, seconds: float, autojump_clock: MockClock
) -> None:
    async with open_world("a", random=LongestWaits(), reconnect_delay=delay, keepalive_expiry=0) as world:
        run_task = world.a.run_task if how == "device" else world.constellation.run_task
        for number in range(1, 3):
            world.problems = [OSError("no route") for _ in range(3)]
            await run_task("echo")
            assert trio.current_time() == pytest.approx(number * seconds, abs=0.1)


@pytest.mark.parametrize("how", ["lost", "closed"])
async def test_task_that_waits_for_room_on_a_connection_that_ends_is_sent_on_the_next_one(
    how: str, autojump_clock: MockClock
) -> None:
    config = device_config("a", max_concurrent_tasks=2)
    async with (
        open_world(config, options=ConnectionOptions(liveness_timeout=50)) as world,
        trio.open_nursery() as nursery,
    ):
        world.streams[0].stall()
        first = await start(nursery, partial(world.a.run_task, "x" * HIGH_WATER_MARK, on_cancel="abandon"))
        second = await start(nursery, partial(world.a.run_task, "echo 2", on_cancel="abandon"))
        if how == "lost":
            world.streams[0].go_silent()
        else:
            await world.a.reconnect()
        await first.ended.wait()
        assert isinstance(first.ending, ConnectionLost)
        await second.ended.wait()
        assert second.echo == "2"
        assert world.begun == ["echo 2"]


async def test_task_that_is_cancelled_while_it_waits_for_room_was_not_sent(autojump_clock: MockClock) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=2)) as world, trio.open_nursery() as nursery:
        async with recording(world.constellation) as journal:
            world.streams[0].stall()
            first = await start(nursery, partial(world.a.run_task, "x" * HIGH_WATER_MARK, on_cancel="abandon"))
            with pytest.raises(RequestTimeout, match="was not sent"):
                await world.a.run_task("echo 2", on_cancel="abandon", timeout=5)
            await trio.testing.wait_all_tasks_blocked()
            [ended] = journal.of(TaskEnded)
            assert isinstance(ended, TaskEnded)
            assert ended.outcome is TaskOutcome.NOT_SENT
            world.streams[0].resume()
            await first.ended.wait()


async def test_next_task_waits_until_the_server_has_noticed_the_end_of_the_previous_connection(
    autojump_clock: MockClock,
) -> None:
    async with open_world(device_config("a", max_concurrent_tasks=2)) as world, trio.open_nursery() as nursery:
        first = await start(nursery, partial(world.a.run_task, "hold 1"))
        other = await start(nursery, partial(world.a.run_task, "hold other"))
        world.streams[1].go_silent()
        first.scope.cancel()
        await first.ended.wait()
        began = trio.current_time()
        tries = len(world.fleet.connects)
        second = await start(nursery, partial(world.constellation.run_task, "echo 2"))
        # It keeps its slot until then.
        third = await start(nursery, partial(world.a.run_task, "echo 3"))
        await second.ended.wait()
        await third.ended.wait()
        waits = [
            later - earlier for (earlier, _), (later, _) in pairwise(world.fleet.connects[tries:]) if later > earlier
        ]
        assert waits[:6] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6], abs=0.01)
        # Until the server notices the end: its liveness timeout is 180 s.
        assert all(wait == pytest.approx(5, abs=0.01) for wait in waits[8:])
        assert trio.current_time() - began < 200
        assert world.begun == ["hold 1", "hold other", "echo 2", "echo 3"]
        world.fleet.work.release("other")
        await other.ended.wait()


async def test_permanent_connection_error_of_a_task_is_raised_immediately(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        world.problems = [ssl.SSLCertVerificationError(1, "certificate verify failed")]
        with pytest.raises(ConnectFailed, match="cannot connect: certificate verify failed"):
            await world.a.run_task("echo 1")
        assert (await world.a.run_task("echo 2")).unwrap()
        world.nothing_is_held()
