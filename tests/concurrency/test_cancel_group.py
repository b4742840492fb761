"""A cancel group stops its blocks together, with a reason."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio._concurrency.cancel_group import CancelGroup
from tests.constellation.support.calls import start


class Stopped(Exception):
    """The reason of a stop."""


async def _work(group: CancelGroup, seconds_to_clean_up: float = 0) -> None:
    with group.guard():
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds_to_clean_up)


async def test_stop_ends_all_blocks_each_with_its_own_error() -> None:
    group = CancelGroup()
    async with trio.open_nursery() as nursery:
        calls = [await start(nursery, partial(_work, group)) for _ in range(3)]
        group.stop(Stopped)
        with trio.fail_after(60):
            await group.wait_stopped()
    assert len({id(call.ending) for call in calls}) == 3
    assert all(isinstance(call.ending, Stopped) for call in calls)


async def test_a_block_that_ends_in_the_step_of_the_stop_raises_nothing() -> None:
    group = CancelGroup()
    with group.guard() as scope:
        group.stop(Stopped)
    assert scope.cancel_called


async def test_a_callers_own_cancellation_is_not_replaced() -> None:
    group = CancelGroup()
    async with trio.open_nursery() as nursery:
        call = await start(nursery, partial(_work, group))
        call.scope.cancel()
        group.stop(Stopped)
    assert call.cancelled


async def test_blocks_may_begin_after_a_stop_but_not_after_the_close() -> None:
    group = CancelGroup()
    async with trio.open_nursery() as nursery:
        group.stop(Stopped)
        call = await start(nursery, partial(_work, group))
        with trio.fail_after(60):
            await group.wait_stopped()
        group.close(Stopped)
        assert not call.ended.is_set()
        with pytest.raises(Stopped), group.guard():
            raise AssertionError
        group.stop(Stopped)
        await call.ended.wait()


async def test_any_number_of_tasks_can_wait_for_the_stopped_blocks(autojump_clock: trio.testing.MockClock) -> None:
    group = CancelGroup()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            for seconds in (1, 2, 3):
                await start(nursery, partial(_work, group, seconds))
            group.stop(Stopped)
            new = await start(nursery, partial(_work, group))
            waits = [await start(nursery, group.wait_stopped) for _ in range(2)]
            for wait in waits:
                await wait.ended.wait()
            assert trio.current_time() == pytest.approx(3)
            assert not new.ended.is_set()
            new.scope.cancel()


class _Steps(trio.abc.Instrument):
    """Counts a task's steps."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self._name


async def test_waiting_takes_no_scheduler_passes(autojump_clock: trio.testing.MockClock) -> None:
    group = CancelGroup()
    steps = _Steps("the waiter")
    trio.lowlevel.add_instrument(steps)
    try:
        async with trio.open_nursery() as nursery:
            await start(nursery, partial(_work, group))
            slow = await start(nursery, partial(_work, group, 10))
            group.stop(Stopped)
            nursery.start_soon(group.wait_stopped, name="the waiter")
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            assert not slow.ended.is_set()
            assert steps.count < 10
    finally:
        trio.lowlevel.remove_instrument(steps)
