"""Constellations: devices that are kept connected, and tasks for whichever of them fits."""

from __future__ import annotations

import trio
import trio.testing
from fleet import device_config, open_fleet, open_small_world, recording

from galaxy_trio.constellation import open_constellation
from galaxy_trio.device_events import DeviceStatus


async def test_its_devices_connect_and_run_tasks(autojump_clock: trio.testing.MockClock) -> None:
    async with open_small_world("a", "b") as (_fleet, constellation):
        assert [device.status for device in constellation.devices.values()] == [DeviceStatus.IDLE] * 2
        result = await constellation.devices["a"].run_task("echo 1")
        assert result.unwrap() == {"device": "a", "echo": "1"}
        result = await constellation.run_task("echo 2", os="Linux")
        assert result.unwrap() == {"device": "b", "echo": "2"}
        statistics = constellation.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)


async def test_events(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        async with open_constellation([device_config("a"), device_config("b")], connect=fleet.connect) as constellation:
            async with recording(constellation) as journal:
                await constellation.wait_connected()
                await constellation.run_task("echo 2", os="Linux", task_id="t")
            for _event in journal.events:
                pass
            async with recording(constellation) as journal:
                await fleet.stop_server()
                await trio.sleep(5)
                await fleet.start_server()
                await fleet.add_device("a")
                await fleet.add_device("b")
                await constellation.wait_connected()
            for _event in journal.events:
                pass
