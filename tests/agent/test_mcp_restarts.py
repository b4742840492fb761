"""Restarts of MCP servers, with simulated sessions on the autojumping clock."""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.agent import mcp_session
from galaxy_trio.agent.mcp_server import Limits, ListedTool, McpServer
from galaxy_trio.agent.mcp_supervisor import McpTools, open_mcp_tools
from galaxy_trio.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.agent.mcp_log import ServerLog
    from galaxy_trio.messages import JSON

Lives: TypeAlias = "tuple[defaultdict[str, list[Life]], list[float]]"
"""The lives of each server by name, filled in by a test; and the start times."""

TOOL = ListedTool("tool", read_only=False)


@attrs.frozen
class Life:
    """One run of a simulated server.

    Attributes:
        seconds: How long it is of use; None if it never lists its tools.
        cannot_start: Its program has gone.
        silent: It never answers.
        changes: What happens on each notification that its list has changed: the new tools, None if it does not answer.
    """

    seconds: float | None = None
    cannot_start: bool = False
    silent: bool = False
    changes: tuple[list[ListedTool] | None, ...] = ()
    ending_takes: float = 0.0


class FakeSession:
    def __init__(self, life: Life) -> None:
        self._life = life
        self._changes = list(life.changes)
        self._listed: list[ListedTool] | None = [TOOL]

    problem = None

    async def initialize(self) -> None:
        if self._life.silent:
            await trio.sleep_forever()
        if self._life.seconds is None:
            raise ToolError("it ended before it replied")

    async def list_tools(self, deadline: float) -> list[ListedTool]:  # noqa: ARG002
        if self._listed is None:
            raise ToolError("it has forgotten them")
        return self._listed

    async def call(self, name: str, parameters: dict[str, JSON]) -> JSON:  # noqa: ARG002  # what sessions are called with
        return name

    async def wait_list_changed(self) -> bool:
        if self._changes:
            self._listed = self._changes.pop(0)
            return True
        assert self._life.seconds is not None
        await trio.sleep(self._life.seconds)
        return False


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Lives:
    return _lives(monkeypatch)


def _lives(monkeypatch: pytest.MonkeyPatch) -> Lives:
    coming: defaultdict[str, list[Life]] = defaultdict(list)
    starts: list[float] = []

    @asynccontextmanager
    async def open_session(server: McpServer, _limits: Limits, _log: ServerLog) -> AsyncGenerator[FakeSession]:
        starts.append(trio.current_time())
        life = coming[server.name].pop(0) if coming[server.name] else Life(seconds=1e9)
        if life.cannot_start:
            raise ConfigError("its program has gone")
        try:
            yield FakeSession(life)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(life.ending_takes)

    monkeypatch.setattr(mcp_session, "open_session", open_session)
    return coming, starts


async def say(tools: McpTools) -> str:
    """Call the one tool and return its result or error."""
    [tool] = tools.tools()
    try:
        return str(await tool.call({}))
    except ToolError as error:
        return str(error)


def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the jitter: every delay is the longest possible."""

    def uniform(_least: float, most: float) -> float:
        return most

    monkeypatch.setattr("random.uniform", uniform)


async def test_delays_double_up_to_60_s_and_reset_after_60_s_of_life(
    lives: Lives, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    longest(monkeypatch)
    coming, starts = lives
    coming["x"] = [Life(seconds=0)] * 8 + [Life(seconds=59)] + [Life(seconds=61)] + [Life(seconds=0)] * 2
    async with open_mcp_tools([McpServer("x", "program")]):
        with trio.fail_after(10_000):
            await trio.sleep(1_000)
    gaps = [round(after - before) for before, after in pairwise(starts)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 59 + 60, 61 + 1, 2, 4]


async def test_server_that_is_down_keeps_its_tools_which_raise_tool_error(
    lives: Lives, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    longest(monkeypatch)
    coming, _ = lives
    coming["x"] = [Life(seconds=10, ending_takes=5), Life(), Life(cannot_start=True), Life(silent=True)]
    async with open_mcp_tools([McpServer("x", "program")]) as tools:
        with trio.fail_after(1_000):
            assert await say(tools) == "tool"
            await trio.sleep(12)
            assert await say(tools) == "MCP server 'x' is not running: it has ended"
            await trio.sleep(4.5)
            assert await say(tools) == "MCP server 'x' is not running: it ended before it replied"
            await trio.sleep(2)
            assert await say(tools) == "MCP server 'x' is not running: its program has gone"
            await trio.sleep(4 + 120)
            assert await say(tools) == "MCP server 'x' is not running: it did not reply within 120 s"
            await trio.sleep(8)
            assert await say(tools) == "tool"


async def test_changed_list_is_requested_and_the_old_one_stays_without_a_reply(
    lives: Lives, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    coming, starts = lives
    other = ListedTool("other", read_only=True)
    coming["x"] = [Life(seconds=1e6, changes=([TOOL, other], [other], None))]
    async with open_mcp_tools([McpServer("x", "program")]) as tools:
        with trio.fail_after(10):
            await trio.sleep(3)
            assert [tool.name for tool in tools.tools()] == ["other"]
            assert await say(tools) == "other"
    assert "failed to list its changed tools: it has forgotten them" in caplog.text
    assert len(starts) == 1


async def test_list_that_changes_for_ever_is_requested_once_per_second(
    lives: Lives, autojump_clock: trio.testing.MockClock
) -> None:
    coming, _ = lives
    coming["x"] = [Life(seconds=1e6, changes=tuple([TOOL] * number for number in range(2, 1_000)))]
    async with open_mcp_tools([McpServer("x", "program")]) as tools:
        await trio.sleep(10.5)
        assert len(tools.tools()) == 12


async def test_block_is_entered_when_the_slowest_server_has_failed_once(
    lives: Lives, autojump_clock: trio.testing.MockClock
) -> None:
    coming, _ = lives
    coming["y"] = [Life(silent=True, ending_takes=6)]
    began = trio.current_time()
    async with open_mcp_tools([McpServer("x", "program"), McpServer("y", "program", start_timeout=7)]) as tools:
        assert trio.current_time() - began == pytest.approx(7)
        assert [tool.namespace for tool in tools.tools()] == ["x"]


async def test_bug_in_a_session_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_session(server: McpServer, limits: Limits, log: ServerLog) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(mcp_session, "open_session", open_session)
    with trio.fail_after(60), pytest.raises(ZeroDivisionError):
        async with open_mcp_tools([McpServer("x", "program")]):
            raise AssertionError


_lifes = st.one_of(
    st.just(Life()),
    st.just(Life(silent=True)),
    st.just(Life(cannot_start=True)),
    st.builds(Life, seconds=st.floats(0, 59) | st.floats(61, 200), ending_takes=st.floats(0, 7)),
)


@given(later=st.lists(_lifes, max_size=20))
def test_server_is_restarted_within_its_delay_after_any_end(later: list[Life]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        coming, starts = _lives(monkeypatch)
        coming["x"] = [Life(seconds=1), *later]

        async def main() -> None:
            async with open_mcp_tools([McpServer("x", "program")]) as tools:
                with trio.fail_after(1e6):
                    await trio.sleep(1e4)
                    assert await say(tools) == "tool"

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(starts) == len(later) + 2
    most = 1.0
    for life, (before, after) in zip([Life(seconds=1), *later], pairwise(starts), strict=True):
        took = (life.seconds or 0) + life.ending_takes + (120 if life.silent else 0)
        most = 1.0 if (life.seconds or 0) >= 60 else most
        assert 0 <= after - before - took + 1e-6 <= most + 2e-6
        most = min(60, 2 * most)


async def test_restarts_fall_silent_after_a_few_and_are_logged_again_after_a_steady_run(
    lives: Lives,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    longest(monkeypatch)
    coming, starts = lives
    coming["x"] = [Life(seconds=0)] * 8 + [Life(seconds=61)]
    async with open_mcp_tools([McpServer("x", "program")]):
        with trio.fail_after(10_000):
            await trio.sleep(1_000)
    assert len(starts) == 10
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    often = ", and again with delays up to 60 s; this is not logged again until it has run for 60 s"
    assert warnings == [
        "MCP server 'x': it has ended; trying again in 1.0 s",
        "MCP server 'x': it has ended; trying again in 2.0 s",
        f"MCP server 'x': it has ended; trying again in 4.0 s{often}",
        "MCP server 'x': it has ended; trying again in 1.0 s",
    ]


async def test_start_that_takes_long_is_logged(
    lives: Lives, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO)
    coming, _ = lives
    coming["x"] = [Life(silent=True)]
    async with open_mcp_tools([McpServer("x", "program", start_timeout=100)]):
        pass
    assert caplog.messages[0] == "waiting for MCP server 'x' to list its tools (start_timeout: 100 s)"
