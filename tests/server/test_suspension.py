"""A server that was suspended, and one whose machine was asleep."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio.testing import FaultyStream, open_memory_server
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    end_of,
    open_clients,
    register_device,
    start_task,
    wait_for,
)
from tests.server.support.raw_client import answering_pings, open_raw_client
from tests.support.machine_sleep import MachineSleep

PONG = b"\x8a\x80mask"
"""A masked pong without a payload."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MachineSleep:
    return MachineSleep(monkeypatch)


async def _suspend(clock: trio.testing.MockClock, seconds: float) -> None:
    """Let trio's clock run without its tasks, as when the process is stopped, then let the tasks run."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def test_server_that_was_suspended_keeps_its_clients_and_their_running_task(
    mock_clock: trio.testing.MockClock,
) -> None:
    gate = trio.Event()
    async with open_clients(partial(wait_for, gate)) as clients:
        await start_task(clients.constellation, "s", "r")
        async with answering_pings(clients.device, clients.constellation):
            for _ in range(10):
                await _suspend(mock_clock, 300)
                await _suspend(mock_clock, 5.1)
                assert (clients.server.devices, clients.server.constellations) == ([DEVICE], [CONSTELLATION])
        gate.set()
        for client in (clients.device, clients.constellation):
            assert await end_of(client, "s") == ("completed", "r", None)


async def test_silent_client_is_lost_5_seconds_after_the_server_was_suspended(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients:
        async with answering_pings(clients.device):
            await _suspend(mock_clock, 300)
            await _suspend(mock_clock, 4.9)
            assert clients.server.constellations == [CONSTELLATION]
            await _suspend(mock_clock, 0.2)
            assert (clients.server.devices, clients.server.constellations) == ([DEVICE], [])


async def test_message_that_arrived_while_the_server_was_suspended_restarts_the_idle_timeout(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients:
        await trio.testing.wait_all_tasks_blocked()
        clients.device.send(type="heartbeat", status="ok")
        mock_clock.jump(700)
        await trio.testing.wait_all_tasks_blocked()
        assert (clients.server.devices, clients.server.constellations) == ([DEVICE], [CONSTELLATION])
        assert (await clients.device.receive())["type"] == "heartbeat"
        async with answering_pings(clients.device):
            await _suspend(mock_clock, 5.1)
            # The constellation answers no pings, and has sent no message.
            assert (clients.server.devices, clients.server.constellations) == ([DEVICE], [])


@pytest.mark.parametrize("reads_again", [True, False])
async def test_client_that_did_not_read_has_5_seconds_after_the_server_was_suspended(
    reads_again: bool, mock_clock: trio.testing.MockClock
) -> None:
    client_end, server_end = trio.testing.memory_stream_pair()
    not_read = FaultyStream(server_end)
    async with open_clients(_return_much) as clients, trio.open_nursery() as nursery:
        nursery.start_soon(clients.server.serve_stream, not_read)
        async with open_raw_client(client_end) as device:
            await register_device(device, "slow")
            await trio.testing.wait_all_tasks_blocked()
            not_read.stall()
            await start_task(clients.constellation, "s", target="slow")
            await _suspend(mock_clock, 100)
            assert clients.server.devices == [DEVICE, "slow"]
            if reads_again:
                not_read.resume()
            await _suspend(mock_clock, 5)
            assert clients.server.devices == ([DEVICE, "slow"] if reads_again else [DEVICE])
            not_read.resume()


async def _return_much(_: object) -> object:
    await trio.lowlevel.checkpoint()
    return "x" * 2**21


async def test_server_whose_machine_was_asleep_checks_every_client(
    machine: MachineSleep, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_server() as server, trio.open_nursery() as nursery:
        gone: list[FaultyStream] = []
        for number in range(20):
            gone.append(FaultyStream(server.connect()))
            await nursery.start(_be_device, gone[-1], f"d{number}")
        for stream in gone[::2]:
            stream.go_silent()
        await trio.sleep(10)
        machine.sleep(240)
        await trio.sleep(10)
        assert server.devices == [f"d{number}" for number in range(1, 20, 2)]
        nursery.cancel_scope.cancel()


async def _be_device(stream: trio.abc.Stream, name: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_raw_client(stream) as client:
        await register_device(client, name)
        task_status.started()
        async with answering_pings(client):
            await trio.sleep_forever()


async def test_bytes_that_arrived_while_the_machine_was_asleep_are_no_answer_to_the_ping(
    machine: MachineSleep, mock_clock: trio.testing.MockClock
) -> None:
    # trio runs the tasks of a step in random order.
    for _ in range(20):
        async with open_memory_server() as server, open_raw_client(server.connect()) as device:
            await register_device(device)
            await trio.testing.wait_all_tasks_blocked()
            machine.sleep(240)
            mock_clock.jump(1)
            await device.send_bytes(PONG)
            await trio.testing.wait_all_tasks_blocked()
            assert server.devices == [DEVICE]
            await _suspend(mock_clock, 8)
            assert server.devices == []
