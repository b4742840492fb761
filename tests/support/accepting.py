"""Makes listeners fail, as they do when there are too many open files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import pytest


def fail_to_accept(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """Make `accept` of sockets fail for some times."""
    accept = trio.SocketListener.accept
    left = [times]

    async def fail(listener: trio.SocketListener) -> trio.SocketStream:
        if left[0]:
            left[0] -= 1
            await trio.lowlevel.checkpoint()
            raise OSError(number, os.strerror(number))
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", fail)
