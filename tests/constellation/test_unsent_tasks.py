"""Tasks whose connection is being opened when their device is disconnected or removed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio import NoSuchDevice
from galaxy_trio.events import TaskEnded, TaskOutcome
from tests.constellation.support.calls import Call, World, open_world, start
from tests.constellation.support.fleet import recording

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


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
