"""The server in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConnectFailed, DeviceInfo, Platform, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server.server import ServerLimits
from galaxy_trio.testing import open_memory_server

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def test_memory_server_serves_any_number_of_connections() -> None:
    async with open_memory_server() as server:
        async with open_device_connection(
            server.url, "device_001", system_info=DeviceInfo("device_001", Platform.LINUX), stream=server.connect()
        ):
            for _ in range(3):
                async with open_connection(server.url, "device_001", stream=server.connect()) as connection:
                    assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}
            assert server.devices == ["device_001"]


async def test_memory_server_takes_a_session_a_token_and_limits() -> None:
    async def session(task: ServerTask) -> str:
        return task.request.upper()

    async with open_memory_server(session=session, token="s3cret", limits=ServerLimits(max_connections=2)) as server:
        async with open_device_connection(
            server.url,
            "device_001",
            system_info=DeviceInfo("device_001", Platform.LINUX),
            token="s3cret",
            stream=server.connect(),
        ):
            async with open_connection(server.url, "device_001", token="s3cret", stream=server.connect()) as connection:
                assert (await connection.run_task("hello")).unwrap() == "HELLO"
                with pytest.raises(ConnectFailed):
                    async with open_connection(server.url, "device_001", token="s3cret", stream=server.connect()):
                        raise AssertionError("not reached")
