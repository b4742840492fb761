"""Several tools with the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio.agent import open_agent, tool
from galaxy_trio.testing import PEER_URL
from tests.agent.support.agent_server import call, open_commanded_agent, results_of
from tests.agent.support.tools import Own
from tests.agent.test_tool_sources import ChangingSource

if TYPE_CHECKING:
    from galaxy_trio.testing import ScriptedPeer


async def keys_of(peer: ScriptedPeer) -> list[tuple[str, str, str]]:
    """The key, name and namespace of each tool that the agent lists."""
    [result] = await results_of(peer, call("list_tools"))
    assert isinstance(result.result, list)
    return [(each["tool_key"], each["tool_name"], each["namespace"]) for each in result.result]  # type: ignore[index,call-overload,misc]


async def test_two_tools_of_one_name_can_both_be_called_and_the_second_is_listed_with_its_namespace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sources = [ChangingSource(Own(1, namespace="a")), ChangingSource(Own(2, namespace="b"))]
    async with open_commanded_agent(tool_sources=sources) as (peer, _, _):
        # Before anyone calls one of them.
        warning = "tool 'own' of 'b' is called 'b.own', because 'a' has a tool of the same name"
        assert caplog.messages.count(warning) == 1
        assert await keys_of(peer) == [("action::own", "own", "a"), ("action::b.own", "b.own", "b")]
        results = await results_of(peer, call("own"), call("a.own"), call("b.own"))
        assert [(result.result, result.namespace) for result in results] == [(1, "a"), (1, "a"), (2, "b")]
    assert caplog.messages.count(warning) == 1


async def test_tool_is_found_by_its_full_name_even_if_no_other_has_its_name() -> None:
    async with open_commanded_agent([Own(1)], tool_sources=[ChangingSource(Own(2, name="other"))]) as (peer, _, _):
        results = await results_of(peer, call("mine.own"), call("mine.other"))
        assert [result.result for result in results] == [1, 2]


async def test_name_with_a_dot_precedes_a_full_name() -> None:
    async with open_commanded_agent([Own(1, name="mine.own"), Own(2)]) as (peer, _, _):
        results = await results_of(peer, call("mine.own"), call("own"))
        assert [result.result for result in results] == [1, 2]


async def test_own_tools_of_different_namespaces_may_share_a_name() -> None:
    first, second = tool(lambda: 1, name="press", namespace="a"), tool(lambda: 2, name="press", namespace="b")
    async with open_commanded_agent([first, second]) as (peer, agent, _):
        assert agent.tool_names == ["list_tools", "press", "b.press"]
        results = await results_of(peer, call("press"), call("b.press"))
        assert [result.result for result in results] == [1, 2]


async def test_own_tool_named_list_tools_is_called_with_its_namespace() -> None:
    async with open_commanded_agent([tool(lambda: "mine", name="list_tools")]) as (peer, agent, _):
        assert agent.tool_names == ["list_tools", "default.list_tools"]
        assert await keys_of(peer) == [("action::default.list_tools", "default.list_tools", "default")]
        [result] = await results_of(peer, call("default.list_tools"))
        assert result.result == "mine"


async def test_second_tool_of_a_name_in_a_namespace_is_warned_about_and_not_listed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = ChangingSource(Own(1), Own(2), Own(3))
    async with open_commanded_agent(tool_sources=[source]) as (peer, _, _):
        # The second one has the full name, so that two of them can be called.
        assert [name for _, name, _ in await keys_of(peer)] == ["own", "mine.own"]
        results = await results_of(peer, call("own"), call("mine.own"))
        assert [result.result for result in results] == [1, 2]
    assert "tool 'own' of 'mine' cannot be called, because there is another one of the same name" in caplog.text


async def test_number_of_warnings_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    source = ChangingSource(*(Own(name=f"tool{number}", namespace=each) for number in range(1_001) for each in "ab"))
    async with open_commanded_agent(tool_sources=[source]) as (peer, _, _):
        assert len(await keys_of(peer)) == 2_002
    assert sum("is called" in message for message in caplog.messages) == 1_000


@pytest.mark.parametrize("namespace", ["", "x" * 1_001, "\ud800"])
def test_invalid_namespace_raises_config_error(namespace: str) -> None:
    with pytest.raises(ConfigError, match="a tool's namespace"):
        tool(lambda: None, name="f", namespace=namespace)


async def test_two_own_tools_with_the_same_name_in_a_namespace_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tools have the name 'own': rename one of them"):
        async with open_agent(PEER_URL, "d", [Own(1), Own(2)]):
            raise AssertionError("not reached")
