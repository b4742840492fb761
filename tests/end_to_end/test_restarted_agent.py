"""A device agent that is restarted while its server still holds its old connection."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio.agent import open_agent
from galaxy_trio.messages import DeviceInfo
from galaxy_trio.testing import FaultyStream, open_memory_server

DEVICE = "device_001"


async def test_restarted_agent_is_registered_within_seconds_although_its_old_connection_is_half_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    streams: list[FaultyStream] = []
    async with open_memory_server() as server:

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            streams.append(FaultyStream(server.connect()))
            return streams[-1]

        async with open_agent(server.url, DEVICE, connect=connect, system_info=DeviceInfo(DEVICE, "linux")):
            streams[0].go_silent()
        restarted_at = trio.current_time()
        async with open_agent(server.url, DEVICE, connect=connect, system_info=DeviceInfo(DEVICE, "linux")):
            assert trio.current_time() - restarted_at == pytest.approx(5)
            assert len(streams) == 2
