"""Timeouts of commands, also in threads that cannot be stopped."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio.agent import tool
from tests.agent.support.agent_server import call, open_commanded_agent, receive_results, results_of, send_batch
from tests.agent.support.tools import FAILURE, SUCCESS, Gate, echo, failure_of, open_blocker, wait_for_thread


async def test_tool_that_times_out_is_cancelled_and_fails_its_command(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate = Gate(timeout=7)
    async with open_commanded_agent([gate.tool, echo]) as (peer, _, _):
        slow, then = await results_of(peer, call("gate"), call("echo"), stop_on_failure=False)
        assert trio.current_time() == pytest.approx(7)
        assert (slow.status, slow.error) == (FAILURE, "tool 'gate' took longer than 7 s")
        assert then.status is SUCCESS
    assert gate.ends == [(None, "cancelled")]


async def test_tool_that_raises_when_it_times_out_fails_its_command(autojump_clock: trio.testing.MockClock) -> None:
    @tool(timeout=7)
    async def press() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

    assert "ValueError: while cleaning up" in await failure_of(press)


async def test_thread_that_times_out_is_abandoned_and_counted_until_it_ends(
    mock_clock: trio.testing.MockClock,
) -> None:
    with open_blocker(timeout=7) as blocker:
        async with open_commanded_agent([blocker.tool, echo]) as (peer, agent, _):
            send_batch(peer, call("block"), call("echo"), stop_on_failure=False)
            await blocker.begun()
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (1, 0)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(7.1)
            slow, then = await receive_results(peer)
            assert (slow.status, slow.error) == (FAILURE, "tool 'block' took longer than 7 s")
            assert then.status is SUCCESS
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (1, 1)
            blocker.go()
            await wait_for_thread(lambda: agent.statistics().threads_running == 0)
            assert agent.statistics().threads_abandoned == 0
            # The tool can be called again.
            send_batch(peer, call("block"))
            await blocker.begun()
            blocker.go()
            [done] = await receive_results(peer)
            assert done.result == "done"
            assert agent.statistics().threads_running == 0


async def test_command_waits_for_a_thread_within_its_timeout(mock_clock: trio.testing.MockClock) -> None:
    gate = Gate(timeout=7)
    with open_blocker(timeout=7) as blocker:
        async with open_commanded_agent([blocker.tool, gate.tool], max_threads=2) as (peer, agent, _):
            for number in range(2):
                send_batch(peer, call("block"))
                await blocker.begun()
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(7.1)
                await receive_results(peer)
                assert agent.statistics().threads_abandoned == number + 1
            send_batch(peer, call("block"))
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().threads_running == 2
            mock_clock.jump(7.1)
            [starved] = await receive_results(peer)
            assert starved.error == "tool 'block' did not start within 7 s: all 2 tool threads are busy"
            # The next timeout has another reason, and another error.
            send_batch(peer, call("gate"))
            await gate.begun()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(7.1)
            [slow] = await receive_results(peer)
            assert slow.error == "tool 'gate' took longer than 7 s"
            # A waiting command gets the thread that ends.
            send_batch(peer, call("block"))
            await trio.testing.wait_all_tasks_blocked()
            blocker.go()
            await blocker.begun()
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (2, 1)
            blocker.go()
            blocker.go()
            [done] = await receive_results(peer)
            assert done.result == "done"


async def test_heartbeats_continue_while_a_thread_blocks(mock_clock: trio.testing.MockClock) -> None:
    with open_blocker() as blocker:
        async with open_commanded_agent([blocker.tool], options=ConnectionOptions(heartbeat_interval=10)) as (
            peer,
            _,
            _,
        ):
            send_batch(peer, call("block"))
            await blocker.begun()
            mock_clock.jump(10.1)
            assert (await peer.receive()).type == "heartbeat"
