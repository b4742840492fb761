"""Cancels work at a given step of trio's scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope right before the n-th step from now, counting the steps of all tasks, or of those with a name."""

    def __init__(self, step: int, scope: trio.CancelScope, *, task_name: str | None = None) -> None:
        self._steps_left = step
        self._scope = scope
        self._task_name = task_name

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._task_name not in (None, task.name):
            return
        self._steps_left -= 1
        if self._steps_left == 0:
            self._scope.cancel()


async def open_and_cancel_at_step(step: int, opening: AbstractAsyncContextManager[object]) -> bool:
    """Open and cancel at a step. Returns whether the block was reached."""
    opened = False
    with trio.fail_after(60), trio.CancelScope() as scope:
        instrument = CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with opening:
                opened = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
    assert opened or scope.cancelled_caught
    return opened
