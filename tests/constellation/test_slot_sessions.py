"""A slot never has two sessions on the server, even when the server has not noticed that a task was stopped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import RequestTimeout
from tests.constellation.support.calls import open_world, start

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.task import OnCancel


@pytest.mark.parametrize("on_cancel", ["stop", "abandon"])
async def test_task_waits_until_the_session_of_the_stopped_task_in_its_slot_has_ended(
    on_cancel: OnCancel, autojump_clock: MockClock
) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        first = await start(nursery, partial(world.a.run_task, "hold 1", timeout=5))
        # The server does not receive the end of the connection.
        world.streams[-1].go_silent()
        await first.ended.wait()
        assert isinstance(first.ending, RequestTimeout)
        second = await start(nursery, partial(world.a.run_task, "echo 2", on_cancel=on_cancel))
        await trio.sleep(4)
        assert world.begun == ["hold 1"]
        # It asks the old connection for 5 s, which ends the session.
        with trio.fail_after(5):
            await second.ended.wait()
        assert second.echo == "2"
        assert world.begun == ["hold 1", "echo 2"]


async def test_task_on_the_shared_connection_opens_no_other_one_after_a_task_that_ended(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a") as world:
        assert (await world.a.run_task("echo 1")).unwrap()
        opened = world.connections
        assert (await world.a.run_task("echo 2", on_cancel="abandon")).unwrap()
        assert world.connections == opened
