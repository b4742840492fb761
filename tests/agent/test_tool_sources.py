"""Sources of tools that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.agent.support.agent_server import call, open_commanded_agent, results_of
from tests.agent.support.tools import FAILURE, SUCCESS, Own, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from galaxy_trio.agent import Tool


class ChangingSource:
    """A source whose tools change."""

    def __init__(self, *tools: Tool) -> None:
        self.offered: list[Tool] = list(tools)
        self.broken = False

    def tools(self) -> Sequence[Tool]:
        if self.broken:
            raise RuntimeError("out of order")
        return self.offered


async def test_sources_are_read_for_each_command() -> None:
    source = ChangingSource()
    async with open_commanded_agent([], tool_sources=iter([source])) as (peer, _, _):
        [result] = await results_of(peer, call("own"))
        assert result.status is FAILURE
        source.offered.append(Own(1))
        assert [result.result for result in await results_of(peer, call("own"), call("own"))] == [1, 1]
        source.offered.clear()
        [result] = await results_of(peer, call("own"))
        assert result.error == "there is no tool 'own' on this device; known: 'list_tools'"


async def test_own_tools_precede_those_of_sources_and_sources_are_read_in_order() -> None:
    first, second = ChangingSource(Own(1), Own(1, name="other")), ChangingSource(Own(2), Own(2, name="other"))
    async with open_commanded_agent([Own(0)], tool_sources=[first, second]) as (peer, _, _):
        results = await results_of(peer, call("own"), call("other"))
        assert [result.result for result in results] == [0, 1]


async def test_broken_source_does_not_hide_other_tools(caplog: pytest.LogCaptureFixture) -> None:
    broken, working = ChangingSource(), ChangingSource(Own(2))
    broken.broken = True
    async with open_commanded_agent([echo], tool_sources=[broken, working]) as (peer, _, _):
        results = await results_of(peer, call("echo", value=1), call("own"), call("nowhere"))
        assert [result.status for result in results] == [SUCCESS, SUCCESS, FAILURE]
    assert "failed to list its tools" in caplog.text
