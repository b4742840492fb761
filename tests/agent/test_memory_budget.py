"""An agent's memory budget."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio.agent import tool
from tests.agent.support.agent_server import call, open_commanded_agent, send_batch

_MB = 2**20
_OPTIONS = ConnectionOptions(memory_budget=10 * _MB)


async def test_batches_that_wait_count_and_the_connection_is_closed_at_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @tool
    async def wait(padding: str) -> None:
        await trio.sleep_forever()

    async with open_commanded_agent([wait], options=_OPTIONS) as (peer, agent, server):
        for number in range(4):
            send_batch(peer, call("wait", padding="x" * 2 * _MB), session_id=f"s{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held == pytest.approx(8 * _MB, rel=0.01)
        peer.send_json({"type": "task_end", "status": "failed", "session_id": "s3"})
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held == pytest.approx(6 * _MB, rel=0.01)
        for number in range(4, 6):
            send_batch(peer, call("wait", padding="x" * 2 * _MB), session_id=f"s{number}")
        assert (await peer.wait_ended()).code == 1013
        await server.accept()
        await agent.wait_registered()
        assert agent.statistics().memory_held == 0
        assert agent.statistics().queued_batches == 0


async def test_a_batch_is_released_when_its_results_are_sent(autojump_clock: trio.testing.MockClock) -> None:
    @tool
    async def wait(padding: str) -> int:
        await trio.sleep(1)
        return len(padding)

    async with open_commanded_agent([wait], options=_OPTIONS) as (peer, agent, _):
        send_batch(peer, call("wait", padding="x" * 2 * _MB))
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held > 2 * _MB
        assert (await peer.receive()).type == "command_results"
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held == 0


async def test_replies_that_the_server_does_not_read_count_with_the_messages_that_they_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @tool
    async def wait(padding: str = "") -> None:
        await trio.sleep_forever()

    async with open_commanded_agent([wait], options=_OPTIONS, max_queued_batches=1) as (peer, agent, server):
        for _ in range(2):
            send_batch(peer, call("wait"))
            await trio.testing.wait_all_tasks_blocked()
        peer.stream.stall()
        # The first one fills the send buffer.
        for number in range(2):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2 * _MB, "session_id": f"s{number}"})
        send_batch(peer, call("wait", padding="x" * 2 * _MB))
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held > 7.5 * _MB
        send_batch(peer, call("wait", padding="x" * 5 * _MB))
        await server.accept()
        await agent.wait_registered()
        assert agent.statistics().memory_held == 0


async def test_a_queued_reply_is_released_when_it_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_commanded_agent(options=_OPTIONS) as (peer, agent, _):
        peer.stream.stall()
        for number in range(3):
            peer.send_json({"type": "task", "status": "ok", "user_request": "x" * 2 * _MB, "session_id": f"s{number}"})
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held > 6 * _MB
        peer.stream.resume()
        for _ in range(3):
            assert (await peer.receive()).type == "task"
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().memory_held == 0
