"""Constellations: devices that are kept connected, and tasks for any device that fits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import ConnectFailed, ConnectionOptions
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceStatus
from tests.constellation.support.calls import open_world, start
from tests.constellation.support.fleet import device_config, open_fleet

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_devices_connect_and_run_tasks(autojump_clock: MockClock) -> None:
    async with open_world("a", "b") as world:
        constellation = world.constellation
        assert [device.status for device in constellation.devices.values()] == [DeviceStatus.IDLE] * 2
        assert repr(constellation) == "<Constellation of 2 devices, 2 connected>"
        result = await constellation.devices["a"].run_task("echo 1")
        assert result.unwrap() == {"device": "a", "echo": "1"}
        result = await constellation.run_task("echo 2", os="Linux")
        assert result.unwrap() == {"device": "b", "echo": "2"}
        world.nothing_is_held()


async def test_wait_connected_waits_for_all_devices_with_auto_connect_or_for_any(autojump_clock: MockClock) -> None:
    configs = [device_config("a"), device_config("b"), device_config("c", auto_connect=False)]
    async with open_fleet("a") as fleet, open_constellation(configs, connect=fleet.connect) as constellation:
        with trio.fail_after(5):
            await constellation.wait_connected("any")
        assert repr(constellation) == "<Constellation of 3 devices, 1 connected>"
        async with trio.open_nursery() as nursery:
            waiting = await start(nursery, constellation.wait_connected)
            # The other device is not connected yet.
            await trio.sleep(100)
            assert not waiting.ended.is_set()
            await fleet.add_device("b")
            await waiting.ended.wait()
            assert waiting.ending is None
            assert [device.connected for device in constellation.devices.values()] == [True, True, False]
        with pytest.raises(ValueError, match=r"^wait for 'all' or for 'any', not for 'some'$"):
            await constellation.wait_connected("some")  # type: ignore[arg-type]


async def test_wait_connected_returns_without_devices() -> None:
    async with open_constellation([]) as constellation:
        with trio.fail_after(60):
            await constellation.wait_connected("all")
            await constellation.wait_connected("any")


async def test_device_that_is_given_up_ends_the_wait_for_all_and_the_last_one_ends_the_wait_for_any(
    autojump_clock: MockClock,
) -> None:
    configs = [device_config(name, max_retries=0) for name in ("a", "b")]

    async def connect(config: object) -> trio.abc.Stream:
        await trio.sleep(10 if config is configs[1] else 100)
        raise OSError("no route")

    async with open_constellation(
        configs, connect=connect, options=ConnectionOptions(connect_timeout=1000)
    ) as constellation:
        async with trio.open_nursery() as nursery:
            waiting = await start(nursery, constellation.wait_connected)
            for_any = await start(nursery, partial(constellation.wait_connected, "any"))
            await waiting.ended.wait()
            assert trio.current_time() == pytest.approx(10)
            await for_any.ended.wait()
            assert trio.current_time() == pytest.approx(100)
        for call in (waiting, for_any):
            assert isinstance(call.ending, ConnectFailed)
            assert str(call.ending) == "cannot connect: no route"


@pytest.mark.parametrize("which", ["all", "any"])
async def test_removing_a_device_ends_the_wait_for_it(which: str, autojump_clock: MockClock) -> None:
    async with (
        open_constellation([device_config("a")], connect=_never) as constellation,
        trio.open_nursery() as nursery,
    ):
        waiting = await start(nursery, partial(constellation.wait_connected, which))  # type: ignore[arg-type]
        await constellation.remove_device("a")
        await waiting.ended.wait()
        assert isinstance(waiting.ending, trio.ClosedResourceError)


async def _never(_config: object) -> trio.abc.Stream:
    await trio.sleep_forever()
    raise AssertionError
