"""The idle timeout of a server's clients."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
import trio.testing

from galaxy_trio.server import ServerLimits
from tests.server.support.clients import (
    CONSTELLATION,
    DEVICE,
    open_clients,
    register_constellation,
    start_task,
    submit,
    wait_for,
)
from tests.server.support.raw_client import RawClient, open_raw_client

IDLE = ServerLimits(idle_timeout=600, liveness_timeout=math.inf)
"""Limits for clients that do not read and therefore answer no pings."""


async def _idle_codes(client: RawClient, codes: list[tuple[float, int]]) -> None:
    _, code = await client.receive_until_ended(10_000)
    codes.append((trio.current_time(), code))


async def test_silent_client_is_closed_at_the_idle_timeout_although_it_answers_pings(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_clients() as clients, trio.open_nursery() as nursery:
        ends: list[tuple[float, int]] = []
        for client in (clients.constellation, clients.device):
            nursery.start_soon(_idle_codes, client, ends)
        await trio.sleep(0.5)
        clients.device.send(type="heartbeat", status="ok")
        await trio.sleep_until(599.999)
        assert len(clients.server.clients()) == 2
        await trio.sleep_until(600.001)
        assert (clients.server.constellations, clients.server.devices) == ([], [DEVICE])
        await trio.sleep_until(601)
        assert ends == [(600, 1000), (600.5, 1000)]


@pytest.mark.parametrize("last_message", ["a refused heartbeat", "unexpected command results"])
async def test_any_valid_message_restarts_the_idle_timeout(
    last_message: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_clients(limits=IDLE) as clients:
        await trio.sleep(599)
        if last_message == "a refused heartbeat":
            # The original constellation sends these without its role.
            clients.constellation.send(type="heartbeat", status="ok")
        else:
            clients.device.send(type="command_results", status="ok", action_results=[])
        await trio.sleep(2)
        left = [CONSTELLATION] if last_message == "a refused heartbeat" else [DEVICE]
        assert clients.server.constellations + clients.server.devices == left


@pytest.mark.parametrize("broken", ["no JSON", '{"type": "heartbeat"'])
async def test_broken_messages_do_not_restart_the_idle_timeout(
    broken: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_clients(limits=IDLE) as clients:
        await trio.sleep(599)
        clients.constellation.send_text(broken)
        await trio.sleep(1.001)
        assert clients.server.constellations == []


@pytest.mark.parametrize("task_ends_at", [300, 599, 600, 601, 1199, 1200, 1201, 5000])
async def test_idle_timeout_counts_from_the_end_of_a_clients_task(
    task_ends_at: float, autojump_clock: trio.testing.MockClock
) -> None:
    gate = trio.Event()
    async with open_clients(partial(wait_for, gate), IDLE) as clients, trio.open_nursery() as nursery:
        ends: list[tuple[float, int]] = []
        submit(clients.constellation, "s")
        for client in (clients.constellation, clients.device):
            nursery.start_soon(_idle_codes, client, ends)
        await trio.sleep_until(task_ends_at)
        assert len(clients.server.clients()) == 2
        gate.set()
        await trio.sleep_until(task_ends_at + 599.9)
        assert len(clients.server.clients()) == 2
        await trio.sleep(1)
        assert ends == [(task_ends_at + 600, 1000)] * 2


async def test_task_of_another_client_does_not_restart_the_idle_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_clients(partial(wait_for, trio.Event()), IDLE) as clients,
        open_raw_client(clients.server.connect()) as other,
    ):
        await register_constellation(other, "other")
        await start_task(clients.constellation, "s")
        await trio.sleep(601)
        assert [client.client_id for client in clients.server.clients()] == [DEVICE, CONSTELLATION]


async def test_message_after_a_tasks_end_restarts_the_idle_timeout(autojump_clock: trio.testing.MockClock) -> None:
    gate = trio.Event()
    async with open_clients(partial(wait_for, gate), IDLE) as clients, trio.open_nursery() as nursery:
        ends: list[tuple[float, int]] = []
        submit(clients.constellation, "s")
        nursery.start_soon(_idle_codes, clients.constellation, ends)
        await trio.sleep(700)
        gate.set()
        await trio.sleep(200)
        clients.constellation.send(type="heartbeat", status="ok", client_type="constellation")
        await trio.sleep(700)
        assert ends == [(1500, 1000)]
