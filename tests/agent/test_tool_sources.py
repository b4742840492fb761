"""Sources of tools that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.agent.support.agent_server import call, open_commanded_agent, results_of
from tests.agent.support.tools import FAILURE, SUCCESS, Own, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from galaxy_trio.agent import Tool


class Shelf:
    """A source whose tools change."""

    def __init__(self, *tools: Tool) -> None:
        self.on_it: list[Tool] = list(tools)
        self.broken = False

    def tools(self) -> Sequence[Tool]:
        if self.broken:
            raise RuntimeError("out of order")
        return self.on_it


async def test_sources_are_read_for_each_command() -> None:
    shelf = Shelf()
    async with open_commanded_agent([], tool_sources=iter([shelf])) as (peer, _, _):
        [result] = await results_of(peer, call("own"))
        assert result.status is FAILURE
        shelf.on_it.append(Own(1))
        assert [result.result for result in await results_of(peer, call("own"), call("own"))] == [1, 1]
        shelf.on_it.clear()
        [result] = await results_of(peer, call("own"))
        assert result.error == "there is no tool 'own' on this device"


async def test_own_tools_precede_those_of_sources_and_sources_are_read_in_order() -> None:
    first, second = Shelf(Own(1), Own(1, name="other")), Shelf(Own(2), Own(2, name="other"))
    async with open_commanded_agent([Own(0)], tool_sources=[first, second]) as (peer, _, _):
        results = await results_of(peer, call("own"), call("other"))
        assert [result.result for result in results] == [0, 1]


async def test_broken_source_does_not_hide_other_tools(caplog: pytest.LogCaptureFixture) -> None:
    broken, well = Shelf(), Shelf(Own(2))
    broken.broken = True
    async with open_commanded_agent([echo], tool_sources=[broken, well]) as (peer, _, _):
        results = await results_of(peer, call("echo", value=1), call("own"), call("nowhere"))
        assert [result.status for result in results] == [SUCCESS, SUCCESS, FAILURE]
    assert "failed to list its tools" in caplog.text
