"""The memory that Python has allocated, measured with tracemalloc."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class TracedMemory:
    """The bytes that Python has allocated since the beginning of the block. Made by `traced_memory`."""

    @property
    def now(self) -> int:
        """The bytes in use now, without garbage."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    @property
    def peak(self) -> int:
        """The most bytes in use since the last call of `reset_peak`."""
        return tracemalloc.get_traced_memory()[1]

    def reset_peak(self) -> None:
        """Forget the peak until now."""
        tracemalloc.reset_peak()


@contextmanager
def traced_memory() -> Generator[TracedMemory]:
    """Trace allocations inside the block."""
    tracemalloc.start()
    try:
        yield TracedMemory()
    finally:
        tracemalloc.stop()
