"""Faulty clients affect no other client."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import open_memory_server
from tests.server.support.clients import (
    DEVICE,
    check_alive,
    end_of,
    open_clients,
    register_constellation,
    register_device,
    request_information,
    run_forever,
    start_task,
    submit,
)
from tests.server.support.raw_client import open_raw_client

if TYPE_CHECKING:
    import pytest

    from galaxy_trio.server import ServerTask


async def test_session_id_near_the_message_limit_affects_no_other_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_server(limits=ServerLimits(max_message_size=2000)) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        # Without a name, which would repeat the id.
        constellation.send(
            type="task", status="ok", client_type="constellation", target_id=DEVICE, session_id="s" * 1750
        )
        assert (await constellation.receive())["type"] == "error"
        await check_alive(device)


async def test_names_above_the_limit_are_refused() -> None:
    async with (
        open_memory_server() as server,
        open_raw_client(server.connect()) as newcomer,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        newcomer.send(type="register", status="ok", client_id="x" * 1001)
        messages, code = await newcomer.receive_until_ended()
        assert ([message["type"] for message in messages], code) == (["error"], 1008)
        await register_device(device)
        await register_constellation(constellation)
        submit(constellation, "x" * 1001)
        assert "at most 1000 are allowed" in str((await constellation.receive())["error"])
        submit(constellation, "x" * 1000)
        assert (await constellation.receive())["type"] == "heartbeat"


async def test_end_that_cannot_be_sent_affects_no_other_client(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(task: ServerTask) -> object:
        raise ValueError("x" * 1000)

    async with (
        open_memory_server(session=fail, limits=ServerLimits(max_message_size=1180)) as server,
        open_raw_client(server.connect()) as device,
        open_raw_client(server.connect()) as constellation,
    ):
        await register_device(device)
        await register_constellation(constellation)
        text = json.dumps(
            {
                "type": "task",
                "status": "ok",
                "client_type": "constellation",
                "target_id": "device_001",
                "session_id": "s" * 1000,
            }
        )
        constellation.send_text(text)
        await trio.testing.wait_all_tasks_blocked()
        await check_alive(device)
    assert "the end of a session could not be sent" in caplog.text


async def test_error_that_cannot_be_echoed_is_answered_with_another_error() -> None:
    async with (
        open_memory_server(limits=ServerLimits(max_message_size=2000)) as server,
        open_raw_client(server.connect()) as device,
    ):
        await register_device(device)
        device.send(type="error", status="error", error="e" * 1900)
        reply = await device.receive()
        assert reply["type"] == "error"
        assert "the reply cannot be sent" in str(reply["error"])
        await check_alive(device)


async def test_system_information_at_the_limit_of_nesting_can_be_sent_on(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        open_memory_server() as server,
        open_raw_client(server.connect()) as constellation,
        AsyncExitStack() as stack,
    ):
        # Three objects are around it.
        for depth, reply in ((498, "error"), (497, "heartbeat")):
            device = await stack.enter_async_context(open_raw_client(server.connect()))
            nested = "[" * depth + "]" * depth
            start = '{"type":"register","status":"ok","client_id":"device_001","metadata":{"system_info":{"a":'
            device.send_text(f"{start}{nested}}}}}}}")
            assert (await device.receive())["type"] == reply
        await register_constellation(constellation)
        request_information(constellation)
        assert (await constellation.receive())["type"] == "device_info_response"
    assert "bug in the server" not in caplog.text


async def test_registration_at_its_timeout_leaves_nothing_behind(mock_clock: trio.testing.MockClock) -> None:
    for steps in range(8):
        for _ in range(5):
            async with (
                open_memory_server(limits=ServerLimits(register_timeout=5)) as server,
                open_raw_client(server.connect()) as device,
            ):
                device.send(type="register", status="ok", client_id="device_001")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                mock_clock.jump(5)
                await trio.testing.wait_all_tasks_blocked()
                await device.abort()
                await trio.testing.wait_all_tasks_blocked()
                assert server.devices == []


async def test_client_that_closes_is_sent_nothing_more_while_its_socket_is_open() -> None:
    async with open_clients(run_forever) as clients, open_raw_client(clients.server.connect()) as other:
        await register_constellation(other, "other")
        await start_task(other, "s")
        await trio.testing.wait_all_tasks_blocked()
        # A close frame with code 1000; the client still reads.
        await other.send_bytes(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        assert (await other.receive_until_ended())[0] == []
        assert (await end_of(clients.device, "s"))[0] == "failed"
        await check_alive(clients.device)
