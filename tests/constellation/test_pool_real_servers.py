"""Idle connections of the pool between real processes: servers that are killed, restarted, suspended or cut off between two tasks.

``SHORT`` is idle for less than a second, after which a connection is used without a ping, and ``LONG`` for more.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio

import galaxy_trio.constellation.pool
from galaxy_trio import ConnectionLost, ConnectionOptions
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from tests.connection.support.proxy import Proxy, open_proxy
from tests.constellation.support.calls import Call
from tests.server.support.killable_server import KillableServer, be_agent, open_killable_server
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from galaxy_trio.constellation.device import Device

pytestmark = pytest.mark.simulation

SHORT: Final = 0.1
LONG: Final = 1.2
idleness = pytest.mark.parametrize("idle", [SHORT, LONG])


@asynccontextmanager
async def open_idle_device(
    folder: Path, liveness_timeout: float = 180.0, *, directly: bool = False
) -> AsyncGenerator[tuple[KillableServer, Proxy, Device, trio.Nursery]]:
    """Open a server that can be killed, a proxy in front of it, and a device with an idle connection through the proxy or directly.

    The end of a killed server is visible on the socket immediately. The proxy passes it on only when it runs.
    """
    with trio.fail_after(10 * SECONDS):
        async with (
            open_killable_server(folder) as server,
            trio.open_nursery() as nursery,
            open_proxy(server.url) as proxy,
        ):
            nursery.start_soon(be_agent, server.url, "d")
            configs = [DeviceConfig("d", server.url if directly else proxy.url)]
            async with open_constellation(
                configs,
                reconnect_delay=0.05,
                options=ConnectionOptions(heartbeat_interval=1, liveness_timeout=liveness_timeout),
                keepalive_expiry=30,
            ) as constellation:
                device = constellation.devices["d"]
                assert (await device.run_task("first")).unwrap() == "first"
                assert device.statistics().idle_connections == 1
                yield server, proxy, device, nursery
            nursery.cancel_scope.cancel()


@idleness
async def test_no_task_is_lost_to_a_server_killed_before_the_task(idle: float, tmp_path: Path) -> None:
    async with open_idle_device(tmp_path, directly=True) as (server, _, device, nursery):
        await trio.sleep(idle)
        await server.kill()
        second = Call()
        nursery.start_soon(second.run, partial(device.run_task, "second"))
        await server.start()
        await second.ended.wait()
        assert second.result.unwrap() == "second"
        assert server.lines("begun") == ["first", "second"]


@idleness
async def test_no_task_is_lost_to_a_server_restarted_before_the_task(idle: float, tmp_path: Path) -> None:
    async with open_idle_device(tmp_path, directly=True) as (server, _, device, _nursery):
        await trio.sleep(idle)
        await server.kill()
        await server.start()
        assert (await device.run_task("second")).unwrap() == "second"
        assert server.lines("begun") == ["first", "second"]


@idleness
async def test_task_for_a_suspended_server_runs_once_when_the_server_resumes(idle: float, tmp_path: Path) -> None:
    async with open_idle_device(tmp_path) as (server, _, device, nursery):
        await trio.sleep(idle)
        server.suspend()
        second = Call()
        nursery.start_soon(second.run, partial(device.run_task, "second"))
        # Longer than the ping timeout.
        await trio.sleep(2.5)
        assert not second.ended.is_set()
        server.resume()
        await second.ended.wait()
        assert second.result.unwrap() == "second"
        assert server.lines("begun") == ["first", "second"]


async def test_no_task_is_lost_to_a_network_cut_more_than_a_second_before_the_task(tmp_path: Path) -> None:
    async with open_idle_device(tmp_path) as (server, proxy, device, _):
        for to_server in (True, False):
            proxy.connections[-1].stall(to_server=to_server)
        await trio.sleep(LONG)
        assert (await device.run_task("second")).unwrap() == "second"
        assert server.lines("begun") == ["first", "second"]


async def test_task_sent_within_a_second_after_a_network_cut_is_lost_and_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is, this is within the time in which no ping is sent.
    monkeypatch.setattr(galaxy_trio.constellation.pool, "FRESH", math.inf)
    async with open_idle_device(tmp_path, liveness_timeout=5) as (server, proxy, device, _):
        cut = proxy.connections[-1]
        for to_server in (True, False):
            cut.stall(to_server=to_server)
        with pytest.raises(ConnectionLost):
            await device.run_task("second")
        # Until the server notices the end, it refuses another connection with this client id: a session may run on the previous one.
        cut.cut()
        assert (await device.run_task("third")).unwrap() == "third"
        assert server.lines("begun") == ["first", "third"]


@idleness
async def test_no_task_is_lost_to_a_connection_reset_or_closed_before_the_task(idle: float, tmp_path: Path) -> None:
    async with open_idle_device(tmp_path) as (server, proxy, device, _):
        for number in range(20):
            connection = proxy.connections[-1]
            (connection.cut if number % 2 else connection.reset)()
            if not number:
                await trio.sleep(idle)
            assert (await device.run_task(f"{number}")).unwrap() == f"{number}"
        assert server.lines("begun") == ["first", *map(str, range(20))]
