"""A device's status and information, and the calls that wait for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import DeviceInfo, RequestTimeout
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceStatus
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config
from tests.constellation.support.scripted_server import open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

IDLE, BUSY, DISCONNECTED, FAILED = DeviceStatus.IDLE, DeviceStatus.BUSY, DeviceStatus.DISCONNECTED, DeviceStatus.FAILED


async def test_wait_status_sees_a_status_that_lasts_one_step(autojump_clock: MockClock) -> None:
    async with open_world("a") as world, trio.open_nursery() as nursery:
        assert await world.a.wait_status(IDLE, BUSY) is IDLE
        waits = [
            await start(nursery, partial(world.a.wait_status, status))
            for status in (BUSY, DISCONNECTED, DeviceStatus.CONNECTING, DeviceStatus.REGISTERING)
        ]
        cancelled = await start(nursery, partial(world.a.wait_status, FAILED))
        assert (await world.a.run_task("echo")).unwrap()
        await world.a.reconnect()
        assert [wait.ending for wait in waits] == [
            BUSY,
            DISCONNECTED,
            DeviceStatus.CONNECTING,
            DeviceStatus.REGISTERING,
        ]
        cancelled.scope.cancel()
        assert repr(world.a) == "<Device 'a', idle>"


async def test_device_info_asks_the_server_once_the_device_is_connected(
    autojump_clock: MockClock,
) -> None:
    async with open_world("a", device_config("b", auto_connect=False)) as world, trio.open_nursery() as nursery:
        info = await world.a.device_info()
        assert (info.device_id, info.platform) == ("a", "linux")
        b = world.constellation.devices["b"]
        with pytest.raises(RequestTimeout, match="no information about device 'b' within 5 s"):
            await b.device_info(timeout=5)
        asked = await start(nursery, partial(b.device_info, timeout=100))
        await b.connect()
        await asked.ended.wait()
        assert asked.ending == await b.device_info()
        assert b.config.device_id == b.device_id == b.profile.device_id == "b"


async def test_device_info_uses_the_next_connection_when_this_side_closes_the_current_one(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server, trio.open_nursery() as nursery:
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            await device.wait_connected()
            server.info = [None]
            asking = await start(nursery, partial(device.device_info, timeout=100))
            server.info = [{"platform": "darwin"}]
            await device.disconnect()
            await trio.sleep(50)
            assert not asking.ended.is_set()
            await device.connect()
            await asking.ended.wait()
            assert isinstance(asking.ending, DeviceInfo)
            assert asking.ending.platform == "darwin"
