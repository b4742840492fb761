"""Rare ends of tasks: invalid replies, replies after the call has ended, and devices that leave in any step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, ConnectionOptions, InvalidMessage, TaskResult
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import DeviceStatus, TaskEnded, TaskOutcome
from galaxy_trio.testing import open_bare_peer, run
from tests.constellation.support.calls import Call, open_world, start
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import open_scripted_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ClientMessage
    from galaxy_trio.testing import ScriptedPeer
    from tests.constellation.support.scripted_server import ScriptedServer

Clock = trio.testing.MockClock
STEPS = range(10)


async def start_now(device_coroutine: object) -> None:
    """Start a task in this step that runs even if it is cancelled immediately."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await device_coroutine  # type: ignore[misc]


async def wait_sent(server: ScriptedServer) -> str:
    """Wait for the only task, and return its session id."""
    await trio.testing.wait_all_tasks_blocked()
    [task] = server.tasks
    assert task.session_id is not None
    return task.session_id


FAILED = '{"type": "task_end", "status": "failed", "session_id": "%s", "error": "no paper"}'
BROKEN = '{"type": "task_end", "status": "completed", "session_id": "%s", "result": NaN}'


async def test_task_with_an_invalid_reply_ends_as_unknown(autojump_clock: Clock) -> None:
    async with (
        open_scripted_server() as server,
        open_constellation([device_config("a")], connect=server.connect) as constellation,
        recording(constellation) as journal,
        trio.open_nursery() as nursery,
    ):
        call = await start(nursery, partial(constellation.devices["a"].run_task, "x"))
        session_id = await wait_sent(server)
        server.peer.send_text(BROKEN % session_id)
        await call.ended.wait()
        assert isinstance(call.ending, InvalidMessage)
        await trio.testing.wait_all_tasks_blocked()
        [end] = journal.of(TaskEnded)
        assert isinstance(end, TaskEnded)
        assert end.outcome is TaskOutcome.UNKNOWN


def _broken_end(peer: ScriptedPeer, task: ClientMessage) -> None:
    peer.send_json({"type": "task_end", "status": 5, "session_id": task.session_id})


def _refusal(peer: ScriptedPeer, _task: ClientMessage) -> None:
    peer.refuse("not today")


@pytest.mark.parametrize(("reply", "outcome"), [(_broken_end, TaskOutcome.UNKNOWN), (_refusal, TaskOutcome.REJECTED)])
@pytest.mark.parametrize("abandoned", [True, False])
async def test_invalid_and_refusing_replies_end_a_task_with_their_outcome(
    reply: Callable[[ScriptedPeer, ClientMessage], None],
    outcome: TaskOutcome,
    abandoned: bool,
    autojump_clock: Clock,
) -> None:
    async with open_bare_peer() as peer, open_world() as world, recording(world.constellation) as journal:
        world.problems = [peer.stream]
        device = world.constellation.add_device(device_config("a"))
        for _ in range(2):
            peer.answer(await peer.receive())
        await device.wait_connected()
        async with trio.open_nursery() as nursery:
            call = await start(nursery, partial(device.run_task, "it", on_cancel="abandon"))
            task = await peer.receive()
            if abandoned:
                call.scope.cancel()
                await call.ended.wait()
            reply(peer, task)
            await trio.testing.wait_all_tasks_blocked()
            await peer.answer_all()
            await call.ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        [ended] = journal.of(TaskEnded)
        assert isinstance(ended, TaskEnded)
        assert ended.outcome is outcome
        assert call.cancelled is abandoned
        assert (device.status, device.running) == (DeviceStatus.IDLE, 0)
        peer.reset()


def test_no_check_follows_an_abandoned_task_that_fails_as_its_device_is_removed() -> None:
    async def remove_after(steps: int) -> TaskOutcome:
        async with (
            open_scripted_server() as server,
            open_constellation(
                [device_config("a")], connect=server.connect, options=ConnectionOptions(heartbeat_interval=1e6)
            ) as constellation,
            recording(constellation) as journal,
            trio.open_nursery() as nursery,
        ):
            call = await start(nursery, partial(constellation.devices["a"].run_task, "x", on_cancel="abandon"))
            session_id = await wait_sent(server)
            call.scope.cancel()
            await call.ended.wait()
            server.peer.send_text(FAILED % session_id)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            await constellation.remove_device("a", wait=False)
            [end] = journal.of(TaskEnded)
            assert isinstance(end, TaskEnded)
            return end.outcome

    # The end may be read before the removal, after it, or in the same step: some seed covers each.
    outcomes = {run(remove_after, steps, seed=seed) for steps in range(12) for seed in range(4)}
    assert outcomes == {TaskOutcome.FAILED, TaskOutcome.LOST}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
@pytest.mark.parametrize("whichever", [False, True], ids=["device", "whichever"])
async def test_disconnecting_in_any_step_of_a_task_loses_no_slot(
    *, steps: int, on_cancel: str, whichever: bool, autojump_clock: Clock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        run_task = world.constellation.run_task if whichever else world.a.run_task
        call = Call()
        nursery.start_soon(call.run, partial(run_task, "echo x", on_cancel=on_cancel))  # type: ignore[arg-type]
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await start_now(world.a.disconnect())
        await trio.testing.wait_all_tasks_blocked()
        await world.a.connect()
        await call.ended.wait()
        assert isinstance(call.ending, ConnectionLost) or call.echo == "x"
        assert world.fleet.work.begun in ([], ["echo x"])
        await trio.testing.wait_all_tasks_blocked()
        world.nothing_is_held()


@pytest.mark.parametrize("steps", STEPS)
async def test_device_info_in_any_step_of_a_disconnection_is_answered_later_or_lost(
    steps: int, autojump_clock: Clock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        call = Call()
        nursery.start_soon(call.run, partial(world.a.device_info, timeout=1000))
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        await start_now(world.a.disconnect())
        await trio.testing.wait_all_tasks_blocked()
        await world.a.connect()
        await call.ended.wait()
        assert (
            isinstance(call.ending, ConnectionLost | trio.ClosedResourceError)
            or call.ending == await world.a.device_info()
        )


@pytest.mark.parametrize("steps", STEPS)
async def test_task_that_starts_in_any_step_of_the_end_completes_or_fails(steps: int, autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        call = Call()
        async with open_world("a", drain=1) as world:
            constellation: Constellation = world.constellation
            nursery.start_soon(call.run, partial(constellation.run_task, "echo x"))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        await call.ended.wait()
        assert isinstance(call.ending, trio.ClosedResourceError | TaskResult)
        statistics = constellation.statistics()
        assert (statistics.running, statistics.queued, statistics.unassigned) == (0, 0, 0)
