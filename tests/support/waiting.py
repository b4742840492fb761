"""Waits for events in real time: in processes, behind sockets, in threads.

Such a test waits for a condition, never for a duration, so that a busy machine makes it slower but does not fail it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import trio

import galaxy_trio.server.server
from galaxy_trio._connection.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    import pytest

SECONDS: Final = 60.0
"""Seconds after which a wait fails: far more than any wait takes on a busy machine."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition without an event holds."""
    with trio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


def close_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the time limit of closing, so that an early close must have another reason."""
    defaults = cast("FunctionType", vars(Link)["__init__"]).__kwdefaults__
    assert defaults is not None
    assert "close_timeout" in defaults
    monkeypatch.setitem(defaults, "close_timeout", math.inf)
    monkeypatch.setattr(galaxy_trio.server.server, "CLOSE_TIMEOUT", math.inf)
