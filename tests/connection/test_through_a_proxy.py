"""A connection keeps its promises on real sockets, through a proxy that cuts, stalls, slows down and resets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.lowlevel

from galaxy_trio import ConnectFailed, ConnectionLost, ConnectionOptions, DeviceInfo, open_connection
from galaxy_trio.agent import open_agent, open_device_connection
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.messages import Command, TaskResult, ToolType
from galaxy_trio.server import Server, ServerLimits, open_server
from tests.connection.support.faults import break_connection
from tests.connection.support.proxy import ProxiedConnection, Proxy, open_proxy
from tests.constellation.support.calls import Call, start
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio import Connection
    from galaxy_trio.server import ServerTask

DEVICE = "device_001"
INFO = DeviceInfo(DEVICE, "linux")


async def _session(task: ServerTask) -> object:
    """Wait for ``wait``, return N characters for ``large N``, and echo everything else."""
    word, _, rest = task.request.partition(" ")
    if word == "wait":
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()
    return "x" * int(rest) if word == "large" else task.request


@attrs.frozen
class _Ends:
    server: Server
    proxy: Proxy

    @property
    def line(self) -> ProxiedConnection:
        """Return the only connection through the proxy."""
        [line] = self.proxy.connections
        return line


@asynccontextmanager
async def _open_ends(limits: ServerLimits | None = None) -> AsyncGenerator[_Ends]:
    with trio.fail_after(2 * SECONDS):
        async with (
            open_server(session=_session, limits=limits) as server,
            open_device_connection(server.url, DEVICE, system_info=INFO),
            open_proxy(server.url) as proxy,
        ):
            yield _Ends(server, proxy)


@asynccontextmanager
async def _open_connected(liveness_timeout: float = 600) -> AsyncGenerator[tuple[_Ends, Connection]]:
    async with (
        _open_ends() as ends,
        open_connection(
            ends.proxy.url,
            DEVICE,
            options=ConnectionOptions(liveness_timeout=liveness_timeout, heartbeat_interval=0.05),
        ) as connection,
    ):
        yield ends, connection


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_the_end_of_the_network_connection_notifies_all_waiters_immediately(how: str) -> None:
    async with _open_connected() as (ends, connection), trio.open_nursery() as nursery:
        calls = [Call() for _ in range(20)]
        for call in calls:
            nursery.start_soon(call.run, partial(connection.run_task, "wait"))
        await until(lambda: ends.server.statistics().sessions == 20)
        getattr(ends.line, how)()
        with trio.fail_after(60):
            for call in calls:
                await call.ended.wait()
                assert isinstance(call.ending, ConnectionLost)
            await until(lambda: not ends.server.statistics().sessions)


async def test_a_stalled_network_connection_is_detected_by_its_silence() -> None:
    async with _open_connected(liveness_timeout=0.5) as (ends, connection), trio.open_nursery() as nursery:
        waiting = await start(nursery, partial(connection.run_task, "wait"))
        ends.line.stall(to_server=False)
        await waiting.ended.wait()
        assert isinstance(waiting.ending, ConnectionLost)
        assert "nothing was received for 0.5 s" in str(waiting.ending)


async def test_requests_cancelled_during_a_stall_tear_no_frame() -> None:
    async with _open_connected() as (ends, connection):
        ends.line.stall(to_server=True)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(connection.run_task, f"{number} {'x' * 2_000_000}")
            # More than the network and the buffer hold together.
            await until(lambda: connection.statistics().bytes_held > 1_000_000)
            nursery.cancel_scope.cancel()
        ends.line.resume()
        results: dict[str, object] = {}

        async def ask(request: str) -> None:
            results[request] = (await connection.run_task(request)).unwrap()

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, f"after {number}")
        assert results == {request: request for request in results}
        assert len(results) == 20


async def test_a_slow_network_connection_transfers_everything_whole() -> None:
    async with _open_ends() as ends:
        # Beginning with the handshake.
        ends.proxy.trickle = (7, 0.0)
        async with open_connection(ends.proxy.url, DEVICE) as connection:
            assert (await connection.device_info()).device_id == DEVICE
            assert (await connection.run_task("ü€😀" * 30)).unwrap() == "ü€😀" * 30
            assert (await connection.run_task("large 20000")).unwrap() == "x" * 20_000


@pytest.mark.parametrize("bytes_before", [0, 10, 150, 400])
async def test_an_end_during_opening_fails_it_immediately(bytes_before: int) -> None:
    async with _open_ends() as ends, trio.open_nursery() as nursery:
        if not bytes_before:
            ends.proxy.refuses = True
        else:
            # This many bytes per hundredth of a second, so that the cut falls into the handshake or the registration.
            ends.proxy.trickle = (bytes_before, 0.01)

        async def cut_soon() -> None:
            while not ends.proxy.connections:
                await trio.lowlevel.checkpoint()
            await trio.sleep(0.005)
            ends.line.cut()

        if bytes_before:
            nursery.start_soon(cut_soon)
        with trio.fail_after(60), pytest.raises(ConnectFailed):
            async with open_connection(ends.proxy.url, DEVICE, options=ConnectionOptions(connect_timeout=600)):
                raise AssertionError


async def _work(seconds: float, name: str) -> str:
    await trio.sleep(seconds)
    return name


class _Journal:
    """The tasks that ran on the server, and the outcomes that their callers received."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    async def session(self, task: ServerTask) -> object:
        """Run a task on the device."""
        self.begun.append(task.request)
        command = Command("_work", ToolType.ACTION, {"seconds": 0.02, "name": task.request})
        [result] = await task.execute([command])
        self.ended.append(task.request)
        return result.result


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_each_task_ends_once_and_correctly_whatever_the_network_does(seed: int) -> None:
    random, journal, tasks = Random(seed), _Journal(), 150
    limits = ServerLimits(liveness_timeout=2, ping_interval=0.5)
    devices = [f"d{number}" for number in range(5)]
    with trio.fail_after(10 * SECONDS):
        async with (
            open_server(session=journal.session, limits=limits) as server,
            open_proxy(server.url) as proxy,
            trio.open_nursery() as nursery,
        ):
            for device in devices:
                nursery.start_soon(_be_agent, proxy.url, device)
            configs = [DeviceConfig(device, proxy.url, max_concurrent_tasks=2) for device in devices]
            calls = [Call() for _ in range(tasks)]
            async with open_constellation(
                configs,
                reconnect_delay=0.05,
                options=ConnectionOptions(liveness_timeout=2, heartbeat_interval=0.3),
                random=random,
            ) as constellation:
                for number, call in enumerate(calls):
                    chosen = constellation.devices[devices[number % len(devices)]]
                    how = chosen.run_task if number % 3 else constellation.run_task
                    nursery.start_soon(call.run, partial(how, f"task {number}", timeout=600))
                for _ in range(25):
                    await trio.sleep(random.uniform(0, 0.1))
                    if proxy.connections:
                        break_connection(random.choice(proxy.connections), random)
                for line in proxy.connections:
                    line.resume()
                for call in calls:
                    await call.ended.wait()
            await until(lambda: not (server.statistics().sessions or server.statistics().constellations))
            nursery.cancel_scope.cancel()
    assert len(journal.begun) == len(set(journal.begun))
    completed = 0
    for number, call in enumerate(calls):
        ending = call.ending
        if isinstance(ending, TaskResult):
            if ending.status == "completed":
                completed += 1
                assert ending.result == f"task {number}"
                assert f"task {number}" in journal.ended
        else:
            assert isinstance(ending, ConnectionLost), ending
    assert completed > tasks / 2


async def _be_agent(url: str, device: str) -> None:
    async with open_agent(
        url,
        device,
        [_work],
        system_info=DeviceInfo(device, "linux"),
        reconnect_delay=0.05,
        options=ConnectionOptions(liveness_timeout=2, heartbeat_interval=0.3),
    ):
        await trio.sleep_forever()
