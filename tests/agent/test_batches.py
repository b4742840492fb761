"""A failure in a batch of commands: planners send a batch as one plan."""

from __future__ import annotations

import pytest

from galaxy_trio.agent import AgentStatistics
from galaxy_trio.messages import CommandResult
from tests.agent.support.agent_server import call, open_commanded_agent, results_of
from tests.agent.support.tools import FAILURE, SKIPPED, SUCCESS, Own, echo, fail

PLAN = [call("echo", value=1), call("fail"), call("echo", value=2), call("fail", why="again")]
ALL_THE_SAME = "skipped, because an earlier command of the batch failed"


@pytest.mark.parametrize("asked", [{}, {"stop_on_failure": True}, {"stop_on_failure": None}], ids=str)
async def test_commands_after_a_failure_are_skipped(asked: dict[str, object]) -> None:
    async with open_commanded_agent([echo, fail]) as (peer, agent, _):
        assert await results_of(peer, *PLAN, **asked) == [
            CommandResult(SUCCESS, result=1, call_id="c0"),
            CommandResult(FAILURE, error="broken", call_id="c1"),
            CommandResult(SKIPPED, error=ALL_THE_SAME, call_id="c2"),
            CommandResult(SKIPPED, error=ALL_THE_SAME, call_id="c3"),
        ]
        assert agent.statistics() == AgentStatistics(
            registered=True,
            registrations=1,
            batches=1,
            commands=4,
            failures=1,
            skipped=2,
            queued_batches=0,
            threads_running=0,
            threads_abandoned=0,
            memory_held=0,
        )


async def test_commands_after_a_failure_run_if_the_server_asks_for_it() -> None:
    async with open_commanded_agent([echo, fail]) as (peer, agent, _):
        results = await results_of(peer, *PLAN, stop_on_failure=False)
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, FAILURE]
        assert (agent.statistics().failures, agent.statistics().skipped) == (2, 0)


async def test_failure_ends_its_own_batch_only() -> None:
    async with open_commanded_agent([echo, fail]) as (peer, _, _):
        await results_of(peer, call("fail"))
        [result] = await results_of(peer, call("echo", value=1))
        assert result.status is SUCCESS


@pytest.mark.parametrize("failing", [call("nowhere"), call("echo", valeu=1)], ids=["unknown tool", "wrong parameters"])
async def test_unknown_tools_and_wrong_parameters_are_failures(failing: dict[str, object]) -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        results = await results_of(peer, failing, call("echo"))
        assert [result.status for result in results] == [FAILURE, SKIPPED]


async def test_command_without_a_tool_takes_no_action_even_after_a_failure() -> None:
    async with open_commanded_agent([echo, fail]) as (peer, agent, _):
        results = await results_of(peer, call(""), call("fail"), call(""), call("echo"))
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, SKIPPED]
        assert results[0] == CommandResult(SUCCESS, result="No action taken.", call_id="c0")
        assert (agent.statistics().failures, agent.statistics().skipped) == (1, 1)


async def test_failure_has_the_namespace_of_its_tool() -> None:
    async with open_commanded_agent([Own(object()), fail]) as (peer, _, _):
        results = await results_of(peer, call("own"), call("fail"), call("nowhere"), stop_on_failure=False)
        assert [(result.status, result.namespace) for result in results] == [(FAILURE, "mine"), *[(FAILURE, None)] * 2]
