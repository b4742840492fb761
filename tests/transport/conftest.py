"""Fixtures of the transport's tests."""

from __future__ import annotations

import pytest

from galaxy_trio.testing import FaultyStream


@pytest.fixture
def pieces_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that collects the sizes of the reads from streams in memory."""
    sizes: list[int] = []
    original = FaultyStream.receive_some

    async def receive_some(self: FaultyStream, max_bytes: int | None = None) -> bytes | bytearray:
        data = await original(self, max_bytes)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(FaultyStream, "receive_some", receive_some)
    return sizes
