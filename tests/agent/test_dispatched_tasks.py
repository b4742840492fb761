"""Tasks and other messages that a server sends to an agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
import trio.testing

from galaxy_trio import ConnectionOptions, TaskStatus
from galaxy_trio._concurrency.memory_budget import MemoryBudget
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.messages import ServerMessage, ServerMessageType
from galaxy_trio.testing import PEER_URL, open_memory_server
from tests.agent.support.agent_server import (
    DEVICE,
    INFO,
    call,
    connect_to,
    open_agent_server,
    open_commanded_agent,
    send_batch,
)

if TYPE_CHECKING:
    import pytest

    from galaxy_trio.server import ServerTask


async def test_dispatched_task_is_submitted_as_the_devices_own() -> None:
    async with open_commanded_agent() as (peer, _, _):
        peer.send_json(
            {"type": "task", "status": "ok", "user_request": "open x", "task_name": "t", "session_id": "s", "response_id": "r"}
        )  # fmt: skip
        sent = json.loads(await peer.receive_text())
        assert sent.pop("timestamp")
        assert sent == {
            "type": "task",
            "status": "continue",
            "client_type": "device",
            "client_id": DEVICE,
            "target_id": DEVICE,
            "request": "open x",
            "session_id": "s",
            "task_name": "t",
        }


async def test_dispatched_task_runs_on_the_server_that_dispatched_it() -> None:
    asked: list[str] = []
    ended = trio.Event()

    async def session(task: ServerTask) -> str:
        await trio.lowlevel.checkpoint()
        asked.append(task.request)
        ended.set()
        return "done"

    async with open_memory_server(session=session) as server:
        async with open_agent(server.url, DEVICE, system_info=INFO, connect=connect_to(server)) as agent:
            agent._received(
                ServerMessage(ServerMessageType.TASK, TaskStatus.OK, user_request="open x", session_id="s7"),
                MemoryBudget(1000).open_share(),
            )
            with trio.fail_after(60):
                await ended.wait()
            assert agent.registered
    assert asked == ["open x"]


async def test_dispatched_task_too_large_to_submit_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_commanded_agent(options=ConnectionOptions(max_message_size=1000)) as (peer, agent, _):
        peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 900, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered
    assert "a reply was dropped: a message of " in caplog.text


async def test_messages_that_are_not_for_devices_are_ignored() -> None:
    async with open_commanded_agent() as (peer, agent, _):
        peer.send(ServerMessageType.DEVICE_INFO_RESPONSE)
        peer.send(ServerMessageType.DEVICE_INFO_REQUEST)
        peer.send(ServerMessageType.TASK_END)
        peer.send_text("{not json")
        peer.refuse("not now")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered


async def test_at_most_100_replies_are_queued_for_a_server_that_does_not_read(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_commanded_agent() as (peer, agent, _):
        connection = agent._connection
        assert connection is not None
        peer.stream.stall()
        for _ in range(150):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2**19, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        assert connection._link.bytes_held < 2**21
        # One line for all of them.
        assert caplog.text.count("the server does not read: 100 replies are queued already, one was dropped") == 1
        # It has read all messages and sends 100 queued replies and those in the buffer.
        peer.stream.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert 100 < len(peer.received_nowait()) < 110
        assert agent.registered


async def test_queued_replies_are_dropped_with_their_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_commanded_agent() as (peer, agent, server):
        peer.stream.stall()
        for _ in range(10):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2**19, "session_id": "s"})
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()
        again, _ = await server.accept()
        await trio.testing.wait_all_tasks_blocked()
        assert again.received_nowait() == []
        assert agent.registered


async def test_commands_before_a_refused_registration_are_not_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runs: list[int] = []

    @tool
    async def run() -> None:
        await trio.lowlevel.checkpoint()
        runs.append(1)

    async with open_agent_server() as server:

        async def command_then_refuse() -> None:
            peer = await server.next_peer()
            await peer.receive()
            send_batch(peer, call("run"))
            peer.refuse("Target device is not connected")
            await server.accept()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(command_then_refuse)
            async with open_agent(PEER_URL, DEVICE, [run], system_info=INFO, connect=server.connect) as agent:
                await trio.testing.wait_all_tasks_blocked()
                assert agent.statistics().queued_batches == 0
    assert runs == []
