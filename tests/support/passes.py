"""Shows that other tasks run during something that takes long."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@attrs.define
class Passes:
    """The number of times that another task has run so far."""

    count: int = 0


@asynccontextmanager
async def counting_passes() -> AsyncGenerator[Passes]:
    """Run another task during the block, which counts how often it gets its turn."""
    passes = Passes()

    async def count() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            passes.count += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        yield passes
        nursery.cancel_scope.cancel()
