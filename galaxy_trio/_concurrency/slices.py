"""Work that a generator does in slices, so that other tasks run in between."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")
S = TypeVar("S")


def next_slice(slices: Generator[S, None, object]) -> S:
    """Do a slice of the work, and return what the generator yields after it.

    There are no garbage collections during this: each could visit all values so far, none of which is garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return next(slices)
    finally:
        if was_enabled:
            gc.enable()


async def finish(slices: Generator[object, None, T]) -> T:
    """Do all of the work, and return what the generator returns. If cancelled, the rest is not done."""
    while True:
        try:
            next_slice(slices)
        except StopIteration as done:
            return cast("T", done.value)
        await trio.lowlevel.checkpoint()
