"""Opening connections: at most ten at a time to each server, and client ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from tests.constellation.support.fleet import device_config
from tests.constellation.support.scripted_server import Reaction, open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

REGISTERED = "client_id 'galaxy_trio-1@a' is already registered"


async def test_at_most_ten_connections_to_a_server_are_opening_and_other_servers_do_not_wait() -> None:
    going, opening, most = trio.Event(), 0, 0
    async with open_scripted_server() as server:

        async def connect(config: DeviceConfig) -> trio.abc.Stream:
            nonlocal opening, most
            if config.device_id.startswith("slow"):
                opening += 1
                most = max(most, opening)
                await going.wait()
                opening -= 1
            return await server.connect(config)

        configs = [device_config(f"slow{number}") for number in range(35)]
        configs += [DeviceConfig(f"other{number}", "ws://other.test/ws") for number in range(5)]
        configs += [DeviceConfig(f"port{number}", "ws://server.test:81/ws") for number in range(5)]
        async with open_constellation(configs, connect=connect) as constellation:
            with trio.fail_after(60):
                for device in list(constellation.devices.values())[35:]:
                    await device.wait_connected()
                await trio.testing.wait_all_tasks_blocked()
                assert (opening, most) == (10, 10)
                going.set()
                await constellation.wait_connected()
            assert most == 10


async def test_adding_and_removing_devices_does_not_change_the_limit_of_opening_connections() -> None:
    opening = most = 0

    async def connect(_: DeviceConfig) -> trio.abc.Stream:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        try:
            await trio.sleep_forever()
        finally:
            opening -= 1

    configs = [device_config(f"d{number}") for number in range(12)]
    async with open_constellation(configs, connect=connect) as constellation:
        with trio.fail_after(60):
            for leaving, staying in ((12, 0), (7, 5), (12, 0)):
                await trio.testing.wait_all_tasks_blocked()
                assert (opening, most) == (10, 10)
                for config in configs[:leaving]:
                    await constellation.remove_device(config.device_id)
                await trio.testing.wait_all_tasks_blocked()
                assert opening == staying
                for config in configs[:leaving]:
                    constellation.add_device(config)
            await trio.testing.wait_all_tasks_blocked()
        assert (opening, most) == (10, 10)


async def test_supervised_connections_of_a_device_have_the_same_client_id(autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.script = [
            OSError(),
            503,
            REGISTERED,
            Reaction.RESET_AFTER_REGISTRATION,
            Reaction.RESET_AFTER_REGISTRATION,
        ]
        configs = [device_config("a"), device_config("b", auto_connect=False)]
        async with open_constellation(configs, connect=server.connect, client_name="demo") as constellation:
            await constellation.devices["a"].wait_connected()
            await trio.sleep(100)
            await constellation.devices["a"].reconnect()
            await constellation.devices["a"].disconnect()
            await constellation.devices["a"].connect()
            assert len(set(server.clients)) == 1
            assert len(server.clients) >= 5
            await constellation.devices["b"].connect()
            a, b = server.clients[0], server.clients[-1]
            assert re.fullmatch("demo-[0-9a-f]{6}@a", a)
            assert re.fullmatch("demo-[0-9a-f]{6}@b", b)
            assert a[:-1] != b[:-1]
