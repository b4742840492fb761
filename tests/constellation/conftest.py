"""Fixtures of the tests of constellations."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the work of threads in the trio task: an autojump clock does not wait for threads."""

    async def run_sync(work: Callable[..., T], *args: object, **_: object) -> T:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
