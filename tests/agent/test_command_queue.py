"""Commands on an agent: their order and results, what fails them, and what stops them."""

from __future__ import annotations

import json
import math
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio.agent import AgentStatistics, Tool, tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON, CommandResult, ResultStatus, ServerMessageType, ToolType
from tests.agent.support.agent_server import (
    call,
    open_commanded_agent,
    receive_results,
    results_of,
    send_batch,
)
from tests.connection.support.recordings import text_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

SUCCESS, FAILURE, SKIPPED = ResultStatus.SUCCESS, ResultStatus.FAILURE, ResultStatus.SKIPPED


@tool
async def echo(value: JSON = None) -> JSON:
    await trio.lowlevel.checkpoint()
    return value


@tool
async def fail(why: str = "broken") -> None:
    await trio.lowlevel.checkpoint()
    raise ToolError(why)


@attrs.define
class Own:
    """A tool that is no function."""

    result: object = None
    name: str = "own"
    namespace: Any = "mine"
    tool_type: ToolType = ToolType.ACTION
    timeout: float = 60.0

    async def call(self, parameters: dict[str, JSON]) -> object:
        assert parameters == {}
        await trio.lowlevel.checkpoint()
        return self.result


class Gate:
    """A tool that says that it has begun, and goes on when it is let; and what became of its calls."""

    def __init__(self, name: str = "gate", timeout: float = math.inf) -> None:
        self._begun_in, self._begun = trio.open_memory_channel[JSON](100)
        self._going_in, self._going = trio.open_memory_channel[None](100)
        self.ends: list[tuple[JSON, str]] = []
        self.tool = tool(self._run, name=name, timeout=timeout)

    async def _run(self, value: JSON = None) -> JSON:
        self._begun_in.send_nowait(value)
        try:
            await self._going.receive()
        except trio.Cancelled:
            self.ends.append((value, "cancelled"))
            raise
        self.ends.append((value, "done"))
        return value

    def go(self) -> None:
        self._going_in.send_nowait(None)

    async def begun(self) -> JSON:
        with trio.fail_after(1000):
            return await self._begun.receive()


class Blocker:
    """The same for threads."""

    def __init__(self, name: str = "block", timeout: float = math.inf) -> None:
        self._begun_in, self._begun = trio.open_memory_channel[None](100)
        self._go = threading.Semaphore(0)
        self._waiting = 0
        self.tool = tool(self._run, name=name, timeout=timeout)

    def _run(self) -> str:
        trio.from_thread.run_sync(self._begun_in.send_nowait, None)
        assert self._go.acquire(timeout=30)
        return "done"

    def go(self) -> None:
        self._go.release()

    async def begun(self) -> None:
        with trio.fail_after(1000):
            await self._begun.receive()


@contextmanager
def a_blocker(timeout: float = math.inf) -> Generator[Blocker]:
    """One whose threads end at last."""
    blocker = Blocker(timeout=timeout)
    try:
        yield blocker
    finally:
        for _ in range(20):
            blocker.go()


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for a thread, which nothing here is told of; in real time."""
    for _ in range(2000):
        if condition():
            return
        await trio.to_thread.run_sync(threading.Event().wait, 0.005)
    raise AssertionError("it never became so")


# ---- results


async def test_results_are_as_recorded() -> None:
    frames = text_frames("task_with_commands")
    command, recorded = (next(f for f in frames if f.json()["type"] == t) for t in ("command", "command_results"))

    def returning(i: int) -> dict[str, int]:
        return {"i": i}

    tools = [tool(returning, name=f"tool_{number}") for number in range(2)]
    async with open_commanded_agent(tools) as (peer, _, _):
        peer.send_json(command.json())
        sent = json.loads(await peer.receive_text())
    expected = recorded.json()
    for message in (sent, expected):
        message.pop("timestamp", None)
        assert len(cast("str", message.pop("request_id"))) == 36
        results = cast("list[dict[str, object]]", message["action_results"])
        message["action_results"] = [{n: v for n, v in result.items() if v is not None} for result in results]
    assert sent == {name: value for name, value in expected.items() if value is not None}


async def test_commands_run_in_order_and_each_has_its_result() -> None:
    order: list[JSON] = []

    @tool
    async def note(value: JSON) -> JSON:
        await trio.lowlevel.checkpoint()
        order.append(value)
        return value

    @tool
    def note_in_thread(value: JSON) -> JSON:
        order.append(value)
        return value

    async with open_commanded_agent([note, note_in_thread]) as (peer, _, _):
        commands = [call("note", value=1), call("note_in_thread", value=[2]), call("note", value=None)]
        results = await results_of(peer, *commands)
    assert order == [1, [2], None]
    assert results == [CommandResult(SUCCESS, result=value, call_id=f"c{n}") for n, value in enumerate(order)]


async def test_each_batch_of_results_has_a_fresh_request_id() -> None:
    async with open_commanded_agent() as (peer, _, _):
        ids: set[str | None] = set()
        for _ in range(3):
            send_batch(peer)
            ids.add((await peer.receive()).request_id)
    assert len(ids) == 3


async def test_after_a_failure_the_others_run_unless_the_batch_says_otherwise() -> None:
    async with open_commanded_agent([echo, fail]) as (peer, agent, _):
        commands = [call("echo", value=1), call("fail"), call("echo", value=2), call("fail", why="again")]
        results = await results_of(peer, *commands)
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, FAILURE]
        results = await results_of(peer, *commands, stop_on_failure=False)
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, FAILURE]
        results = await results_of(peer, *commands, stop_on_failure=True)
        assert [result.status for result in results] == [SUCCESS, FAILURE, SKIPPED, SKIPPED]
        assert results[2] == CommandResult(SKIPPED, error="a command before it failed", call_id="c2")
        assert agent.statistics() == AgentStatistics(
            registered=True,
            registrations=1,
            batches=3,
            commands=12,
            failures=5,
            skipped=2,
            queued_batches=0,
            threads_running=0,
            threads_abandoned=0,
        )


async def test_a_batch_without_commands_has_no_results() -> None:
    async with open_commanded_agent() as (peer, _, _):
        assert await results_of(peer) == []
        peer.send_json({"type": "command", "status": "continue", "session_id": "s", "response_id": "r"})
        assert await receive_results(peer, "r") == []


async def test_a_command_of_another_tool_type_is_run_anyway() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        [result] = await results_of(peer, {**call("echo", value=1), "tool_type": "data_collection"})
        assert result.result == 1


async def test_a_command_without_parameters_or_call_id_is_run() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        [result] = await results_of(peer, {"tool_name": "echo", "call_id": None})
        assert result == CommandResult(SUCCESS)


async def test_the_result_says_where_the_tool_comes_from() -> None:
    async with open_commanded_agent([Own([1])]) as (peer, _, _):
        assert await results_of(peer, call("own")) == [CommandResult(SUCCESS, None, [1], "mine", "c0")]


async def test_a_result_is_what_it_was_when_it_was_returned() -> None:
    shared: list[object] = [1]

    @tool
    async def give() -> list[object]:
        await trio.lowlevel.checkpoint()
        return shared

    @tool
    async def spoil() -> None:
        await trio.lowlevel.checkpoint()
        shared.append(object())

    async with open_commanded_agent([give, spoil]) as (peer, _, _):
        results = await results_of(peer, call("give"), call("spoil"))
        assert [result.result for result in results] == [[1], None]


async def test_results_are_as_json_has_them() -> None:
    async with open_commanded_agent([Own({1: (ToolType.ACTION, True, 2.5, None)})]) as (peer, _, _):
        [result] = await results_of(peer, call("own"))
        assert result.result == {"1": ["action", True, 2.5, None]}


# ---- what fails a command


async def _failure_of(made: Tool, *, device: dict[str, Any] | None = None, **parameters: JSON) -> str:
    """What is said of a command that fails, on an agent that lives on."""
    async with open_commanded_agent([made, echo], **(device or {})) as (peer, agent, _):
        failed, then = await results_of(peer, call(made.name, **parameters), call("echo", value="on"))
        assert (then.status, then.result) == (SUCCESS, "on")
        assert (failed.status, failed.result, failed.call_id) == (FAILURE, None, "c0")
        assert agent.statistics().failures == 1
        assert failed.error is not None
        assert failed.error.splitlines() == [failed.error]
        return failed.error


async def test_an_unknown_tool_fails_its_command() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        results = await results_of(peer, call("eccho"), call("x" * 10_000))
        assert results[0].error == "there is no tool 'eccho' on this device"
        assert len(results[1].error or "") < 100


async def test_wrong_parameters_fail_their_command() -> None:
    @tool
    async def press(count: int) -> None:
        raise AssertionError("not reached")

    said = await _failure_of(press, count="5")
    assert said == "wrong parameters for tool 'press': count: expected an integer, got the string '5'"


async def test_what_a_tool_raises_is_told_in_one_line_and_its_traceback_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    async def press() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("no\nsuch   key")

    assert await _failure_of(press) == "ValueError: no such key"
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.message == "tool 'press' raised"
    assert record.exc_info is not None
    assert "Traceback" in caplog.text


async def test_a_tool_error_is_told_as_it_is_and_needs_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert await _failure_of(fail, why="there is no window\nof that name") == "there is no window of that name"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyError("x"), "KeyError: 'x'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ExceptionGroup("two", [ValueError(1), OSError(2)]), "ExceptionGroup: two (2 sub-exceptions)"),
        (ExceptionGroup("one", [ValueError("a")]), "ValueError: a"),
        (ValueError("\ud800"), "ValueError: \\ud800"),
        (trio.TooSlowError("mine"), "TooSlowError: mine"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_whatever_a_tool_raises_fails_its_command(error: BaseException, said: str, in_thread: bool) -> None:
    def raising() -> None:
        raise error

    async def raising_here() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    assert await _failure_of(tool(raising) if in_thread else tool(raising_here)) == said


async def test_an_error_that_cannot_say_what_it_is_is_told_by_its_kind() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

        def __repr__(self) -> str:
            return "Mute()"

    @tool
    async def press() -> None:
        await trio.lowlevel.checkpoint()
        raise Mute

    async with open_commanded_agent([press]) as (peer, _, _):
        [failed] = await results_of(peer, call("press"))
        assert failed.error == "Mute"


async def test_a_long_error_is_shortened() -> None:
    said = await _failure_of(fail, why="x " * 10_000_000)
    assert len(said) == 500


async def test_a_keyboard_interrupt_in_a_tool_ends_the_agent() -> None:
    @tool
    async def press() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    with trio.fail_after(60), pytest.raises(KeyboardInterrupt):
        async with open_commanded_agent([press]) as (peer, _, _):
            send_batch(peer, call("press"))
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (object(), "Object of type object is not JSON serializable"),
        (math.nan, "Out of range float values are not JSON compliant"),
        ({"a": {1, 2}}, "Object of type set is not JSON serializable"),
        ({(1, 2): 3}, "keys must be str, int, float, bool or None, not tuple"),
        ("\ud800", "a lone surrogate in a string, which UTF-8 cannot encode"),
        (b"bytes", "Object of type bytes is not JSON serializable"),
    ],
    ids=["object", "nan", "set", "tuple as key", "surrogate", "bytes"],
)
async def test_a_result_that_json_cannot_hold_fails_its_command(result: object, said: str) -> None:
    assert (await _failure_of(Own(result))).startswith(f"the result of tool 'own' cannot be sent: {said}")


async def test_a_result_nested_too_deep_or_in_a_circle_fails_its_command() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert await _failure_of(Own(deep)) == "the result of tool 'own' cannot be sent: nested too deep"
    deep = []
    deep.append(deep)
    assert await _failure_of(Own(deep)) == "the result of tool 'own' cannot be sent: Circular reference detected"


@pytest.mark.parametrize(("text", "size"), [("x" * 3000, 3002), ("ü" * 1500, 3002)])
async def test_a_result_above_the_message_limit_fails_its_command(text: str, size: int) -> None:
    said = await _failure_of(Own(text), device={"max_message_size": 2000})
    assert said == f"the result of tool 'own' has {size} bytes, and a message has at most 2000"


async def test_of_results_that_are_too_large_together_the_largest_fail_until_they_fit() -> None:
    @tool
    async def repeat(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "ü" * (count // 2)

    async with open_commanded_agent([repeat], max_message_size=4000) as (peer, agent, _):
        sizes = [1000, 1800, 10, 1500, 900]
        results = await results_of(peer, *[call("repeat", count=size) for size in sizes])
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, SUCCESS, SUCCESS]
        failed = results[1]
        assert failed.error == "its result of 1847 bytes is too large beside the others'"
        assert failed.call_id == "c1"
        assert agent.statistics().failures == 1
        # Exactly as many as must.
        results = await results_of(peer, *[call("repeat", count=1200) for _ in range(6)])
        assert [result.status for result in results].count(SUCCESS) == 2


async def test_results_that_just_fit_are_all_sent_and_of_one_byte_more_one_fails() -> None:
    @tool
    async def repeat(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * count

    async with open_commanded_agent([repeat], max_message_size=4000) as (peer, _, _):

        async def answer_to(first: int) -> tuple[int, list[str]]:
            commands = [call("repeat", count=count) for count in (first, 400, 400, 400, 400, 400)]
            # An id of one length: the answers tell it.
            send_batch(peer, *commands, response_id="r")
            text = await peer.receive_text()
            return len(text), [result["status"] for result in json.loads(text)["action_results"]]

        size, _ = await answer_to(500)
        most = 500 + 4000 - size
        assert await answer_to(most) == (4000, ["success"] * 6)
        _, statuses = await answer_to(most + 1)
        assert statuses == ["failure"] + ["success"] * 5


async def test_when_not_even_the_failures_fit_the_message_says_why() -> None:
    async with open_commanded_agent(max_message_size=2000) as (peer, agent, _):
        actions = [{"tool_name": "x", "tool_type": "action"}] * 35
        peer.send_json({"type": "command", "status": "ok", "response_id": "r", "session_id": "s", "actions": actions})
        answer = await peer.receive()
        assert (answer.action_results, answer.prev_response_id) == ([], "r")
        assert answer.error == "the results of 35 commands are above the 2000 bytes of a message"
        assert agent.registered


async def test_results_whose_ids_leave_no_room_are_given_up_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with open_commanded_agent([echo], max_message_size=2000) as (peer, agent, _):
        send_batch(peer, call("echo"), session_id="s" * 1750)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert await results_of(peer) == []
        assert agent.registered
    assert "an answer was given up: a message of " in caplog.text


@pytest.mark.parametrize("namespace", ["\ud800", object()], ids=["surrogate", "object"])
async def test_a_namespace_that_cannot_be_sent_fails_its_command(namespace: object) -> None:
    said = await _failure_of(Own(1, namespace=namespace))
    assert said.startswith("the result cannot be sent: cannot send a command_results message: ")


@pytest.mark.parametrize("timeout", [math.nan, "long"])
async def test_a_tool_whose_time_limit_is_none_fails_its_command(timeout: Any) -> None:
    assert await _failure_of(Own(1, timeout=timeout))


async def test_a_tool_that_gives_nothing_to_await_fails_its_command() -> None:
    def give(_: object) -> int:
        return 5

    own = SimpleNamespace(name="own", namespace=None, tool_type=ToolType.ACTION, timeout=60.0, call=give)
    assert (await _failure_of(cast("Tool", own))).startswith("TypeError: ")


# ---- time limits


async def test_a_tool_that_takes_too_long_is_cancelled_and_fails_its_command(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate = Gate(timeout=7)
    async with open_commanded_agent([gate.tool, echo]) as (peer, _, _):
        slow, then = await results_of(peer, call("gate"), call("echo"))
        assert trio.current_time() == pytest.approx(7)
        assert (slow.status, slow.error) == (FAILURE, "tool 'gate' took longer than its 7 s")
        assert then.status is SUCCESS
    assert gate.ends == [(None, "cancelled")]


async def test_a_tool_that_fails_while_its_time_is_up_fails_its_command(autojump_clock: trio.testing.MockClock) -> None:
    @tool(timeout=7)
    async def press() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

    assert "ValueError: while cleaning up" in await _failure_of(press)


async def test_a_thread_whose_time_is_up_is_left_to_its_end_and_counted_until_then(
    mock_clock: trio.testing.MockClock,
) -> None:
    with a_blocker(timeout=7) as blocker:
        async with open_commanded_agent([blocker.tool, echo]) as (peer, agent, _):
            send_batch(peer, call("block"), call("echo"))
            await blocker.begun()
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (1, 0)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(7.1)
            slow, then = await receive_results(peer)
            assert (slow.status, slow.error) == (FAILURE, "tool 'block' took longer than its 7 s")
            assert then.status is SUCCESS
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (1, 1)
            blocker.go()
            await _until(lambda: agent.statistics().threads_running == 0)
            assert agent.statistics().threads_abandoned == 0
            # And it can be called again.
            send_batch(peer, call("block"))
            await blocker.begun()
            blocker.go()
            [done] = await receive_results(peer)
            assert done.result == "done"
            assert agent.statistics().threads_running == 0


async def test_while_all_threads_are_taken_a_command_waits_within_its_time(mock_clock: trio.testing.MockClock) -> None:
    gate = Gate(timeout=7)
    with a_blocker(timeout=7) as blocker:
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
            assert starved.error == "tool 'block' found all 2 threads for tools busy for 7 s"
            # It is said of nothing else that takes too long.
            send_batch(peer, call("gate"))
            await gate.begun()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(7.1)
            [slow] = await receive_results(peer)
            assert slow.error == "tool 'gate' took longer than its 7 s"
            # One that waits gets the place of one that ends.
            send_batch(peer, call("block"))
            await trio.testing.wait_all_tasks_blocked()
            blocker.go()
            await blocker.begun()
            assert (agent.statistics().threads_running, agent.statistics().threads_abandoned) == (2, 1)
            blocker.go()
            blocker.go()
            [done] = await receive_results(peer)
            assert done.result == "done"


async def test_it_goes_on_beating_while_a_thread_blocks(mock_clock: trio.testing.MockClock) -> None:
    with a_blocker() as blocker:
        async with open_commanded_agent([blocker.tool], heartbeat_interval=10) as (peer, _, _):
            send_batch(peer, call("block"))
            await blocker.begun()
            mock_clock.jump(10.1)
            assert (await peer.receive()).type == "heartbeat"


# ---- one batch at a time


async def test_batches_run_one_after_the_other() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, agent, _):
        ids = [
            send_batch(peer, call("gate", value=f"{session}{n}"), session_id=session) for session in "ab" for n in "12"
        ]
        for number, value in enumerate(("a1", "a2", "b1", "b2")):
            assert await gate.begun() == value
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().queued_batches == 3 - number
            assert peer.received_nowait() == []
            gate.go()
            [result] = await receive_results(peer, ids[number])
            assert result.result == value


async def test_a_batch_beyond_those_that_may_wait_is_answered_at_once_with_failures() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool], max_queued_batches=2) as (peer, agent, _):
        send_batch(peer, call("gate"))
        await gate.begun()
        waiting = [send_batch(peer, call("gate")) for _ in range(2)]
        refused = await receive_results(peer, send_batch(peer, call("gate"), call("gate")))
        why = "2 batches wait on this device already: nothing of this one was run"
        assert refused == [CommandResult(FAILURE, error=why, call_id=f"c{number}") for number in range(2)]
        assert (agent.statistics().queued_batches, agent.statistics().failures) == (2, 2)
        gate.go()
        await receive_results(peer)
        for response_id in waiting:
            await gate.begun()
            gate.go()
            await receive_results(peer, response_id)
        assert agent.statistics().batches == 4


async def test_a_refusal_too_large_to_send_says_why_or_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool], max_queued_batches=1, max_message_size=2000) as (peer, agent, _):
        send_batch(peer, call("gate"))
        await gate.begun()
        send_batch(peer, call("gate"))
        actions = [{"tool_name": "x", "tool_type": "action"}] * 35
        peer.send_json({"type": "command", "status": "ok", "response_id": "r", "session_id": "s", "actions": actions})
        answer = await peer.receive()
        assert (answer.action_results, answer.prev_response_id) == ([], "r")
        send_batch(peer, session_id="s" * 1850)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert agent.registered
    assert "an answer was given up: a message of " in caplog.text


# ---- what stops them


async def test_the_end_of_a_task_cancels_its_batch_and_drops_those_that_wait() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool, echo]) as (peer, agent, _):
        send_batch(peer, call("echo"), call("gate", value=1), call("gate", value=2), session_id="a")
        await gate.begun()
        send_batch(peer, call("gate", value=3), session_id="a")
        other = send_batch(peer, call("gate", value=4), session_id="b")
        send_batch(peer, call("gate", value=5), session_id="a")
        # Another's end, and one that names none, change nothing.
        peer.send(ServerMessageType.TASK_END, session_id="c")
        peer.send(ServerMessageType.TASK_END)
        await trio.testing.wait_all_tasks_blocked()
        assert (gate.ends, agent.statistics().queued_batches) == ([], 3)
        peer.send(ServerMessageType.TASK_END, session_id="a")
        assert await gate.begun() == 4
        assert (gate.ends, agent.statistics().queued_batches) == ([(1, "cancelled")], 0)
        gate.go()
        [result] = await receive_results(peer, other)
        assert result.result == 4
        assert peer.received_nowait() == []


async def test_the_end_of_a_task_leaves_a_batch_without_a_session_alone() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, _, _):
        send_batch(peer, call("gate"), session_id=None)
        await gate.begun()
        peer.send(ServerMessageType.TASK_END)
        await trio.testing.wait_all_tasks_blocked()
        gate.go()
        [result] = await receive_results(peer)
        assert result.status is SUCCESS


async def test_the_end_of_a_task_keeps_results_back_that_wait_for_room() -> None:
    async with open_commanded_agent([Own("x" * 2**20), echo]) as (peer, agent, _):
        peer.stream.stall()
        # The first fills the send buffer, and the second waits.
        first = send_batch(peer, call("own"), session_id="a")
        send_batch(peer, call("own"), session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        assert agent.statistics().commands == 2
        peer.send(ServerMessageType.TASK_END, session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        peer.stream.resume()
        await receive_results(peer, first)
        last = send_batch(peer, call("echo", value=1), session_id="c")
        await receive_results(peer, last)
        assert peer.received_nowait() == []


async def test_the_loss_of_the_connection_cancels_and_drops_all(autojump_clock: trio.testing.MockClock) -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool, echo]) as (peer, agent, server):
        send_batch(peer, call("gate", value=1), session_id="a")
        await gate.begun()
        send_batch(peer, call("gate", value=2), session_id="b")
        await trio.testing.wait_all_tasks_blocked()
        peer.reset()
        await trio.testing.wait_all_tasks_blocked()
        assert (gate.ends, agent.statistics().queued_batches) == ([(1, "cancelled")], 0)
        again, _ = await server.accept()
        [result] = await results_of(again, call("echo", value=3))
        assert result.result == 3
    assert gate.ends == [(1, "cancelled")]


async def test_the_loss_of_the_connection_leaves_threads_to_their_end() -> None:
    with a_blocker() as blocker:
        async with open_commanded_agent([blocker.tool]) as (peer, agent, _):
            send_batch(peer, call("block"))
            await blocker.begun()
            peer.reset()
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().threads_abandoned == 1
            blocker.go()
            await _until(lambda: agent.statistics().threads_running == 0)
            assert agent.statistics().threads_abandoned == 0


async def test_the_end_of_the_block_cancels_what_runs_and_closes_in_good_order() -> None:
    gate = Gate()
    async with open_commanded_agent([gate.tool]) as (peer, _, _):
        send_batch(peer, call("gate"))
        await gate.begun()
    assert gate.ends == [(None, "cancelled")]
    assert (await peer.wait_ended()).code == 1000


@pytest.mark.parametrize("how", ["task_end", "loss", "leaving"])
async def test_a_tool_that_fails_when_it_is_cancelled_is_logged_and_harms_nobody(
    how: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    begun = trio.Event()

    @tool
    async def press() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

    async with open_commanded_agent([press, echo]) as (peer, _, server):
        send_batch(peer, call("press"))
        await begun.wait()
        if how == "task_end":
            peer.send(ServerMessageType.TASK_END, session_id="s1")
            [result] = await results_of(peer, call("echo", value=1))
            assert result.result == 1
        elif how == "loss":
            peer.reset()
            again, _ = await server.accept()
            [result] = await results_of(again, call("echo", value=1))
            assert result.result == 1
    assert "while cleaning up" in caplog.text


async def test_after_a_loss_in_the_middle_of_a_command_no_other_batch_is_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runs: list[int] = []

    @tool
    async def lose() -> None:
        runs.append(1)
        connection = agent._connection
        assert connection is not None
        connection._link.lose("in the middle")

    async with open_commanded_agent([lose], heartbeat_interval=1e6, liveness_timeout=1e6) as (peer, agent, server):
        peers = [peer]
        # Again and again: without care it would depend on the order in which tasks run.
        for number in range(1, 11):
            send_batch(peers[-1], call("lose"))
            send_batch(peers[-1], call("lose"))
            peers.append((await server.accept())[0])
            assert len(runs) == number


# ---- where tools come from


class Shelf:
    """A source whose tools change."""

    def __init__(self, *tools: Tool) -> None:
        self.on_it: list[Tool] = list(tools)
        self.broken = False

    def tools(self) -> Sequence[Tool]:
        if self.broken:
            raise RuntimeError("out of order")
        return self.on_it


async def test_sources_are_asked_anew_for_each_command() -> None:
    shelf = Shelf()
    async with open_commanded_agent([], tool_sources=iter([shelf])) as (peer, _, _):
        [result] = await results_of(peer, call("own"))
        assert result.status is FAILURE
        shelf.on_it.append(Own(1))
        assert [result.result for result in await results_of(peer, call("own"), call("own"))] == [1, 1]
        shelf.on_it.clear()
        [result] = await results_of(peer, call("own"))
        assert result.error == "there is no tool 'own' on this device"


async def test_the_agents_own_tools_go_before_those_of_sources_and_the_first_source_before_the_second() -> None:
    first, second = Shelf(Own(1), Own(1, name="other")), Shelf(Own(2), Own(2, name="other"))
    async with open_commanded_agent([Own(0)], tool_sources=[first, second]) as (peer, _, _):
        results = await results_of(peer, call("own"), call("other"))
        assert [result.result for result in results] == [0, 1]


async def test_a_broken_source_takes_no_other_tools_with_it(caplog: pytest.LogCaptureFixture) -> None:
    broken, well = Shelf(), Shelf(Own(2))
    broken.broken = True
    async with open_commanded_agent([echo], tool_sources=[broken, well]) as (peer, _, _):
        results = await results_of(peer, call("echo", value=1), call("own"), call("nowhere"))
        assert [result.status for result in results] == [SUCCESS, SUCCESS, FAILURE]
    assert "does not tell its tools" in caplog.text


# ---- any order of things

_Step = tuple[Literal["batch", "end", "go"], str, int]
_STEPS = st.lists(
    st.tuples(st.just("batch"), st.sampled_from("ab"), st.integers(0, 2))
    | st.tuples(st.just("end"), st.sampled_from("abc"), st.just(0))
    | st.tuples(st.just("go"), st.just(""), st.just(0)),
    max_size=25,
)


@attrs.define
class Model:
    """What must become of batches, in other words: at most two wait."""

    waiting: list[tuple[str, str, int]] = attrs.field(factory=list[tuple[str, str, int]])
    running: tuple[str, str, int] | None = None
    left: int = 0
    answers: list[tuple[str, list[str]]] = attrs.field(factory=list[tuple[str, list[str]]])

    def batch(self, name: str, session: str, size: int) -> None:
        if len(self.waiting) == 2:
            self.answers.append((name, ["failure"] * size))
        else:
            self.waiting.append((name, session, size))
            self.advance()

    def end(self, session: str) -> None:
        self.waiting = [batch for batch in self.waiting if batch[1] != session]
        if self.running is not None and self.running[1] == session:
            self.running = None
        self.advance()

    def go(self) -> None:
        self.left -= 1
        self.advance()

    def advance(self) -> None:
        while True:
            if self.running is not None:
                if self.left:
                    return
                self.answers.append((self.running[0], ["success"] * self.running[2]))
                self.running = None
            if not self.waiting:
                return
            self.running = self.waiting.pop(0)
            self.left = self.running[2]


async def _follow(steps: list[_Step]) -> None:
    gate, model = Gate(), Model()
    answers: list[tuple[str | None, list[str]]] = []
    async with open_commanded_agent([gate.tool], max_queued_batches=2) as (peer, agent, _):
        for what, session, size in steps:
            if what == "batch":
                model.batch(send_batch(peer, *[call("gate")] * size, session_id=session), session, size)
            elif what == "end":
                peer.send(ServerMessageType.TASK_END, session_id=session)
                model.end(session)
            elif model.running is not None:
                gate.go()
                model.go()
            await trio.testing.wait_all_tasks_blocked()
            assert agent.statistics().queued_batches == len(model.waiting)
            answers += [
                (message.prev_response_id, [result.status.value for result in message.action_results or []])
                for message in peer.received_nowait()
            ]
            assert answers == model.answers
    assert agent.statistics().batches == sum(what == "batch" for what, _, _ in steps)


@settings(max_examples=80, deadline=None)
@given(_STEPS)
def test_in_any_order_of_batches_ends_and_progress_each_batch_gets_what_it_must(steps: list[_Step]) -> None:
    trio.run(_follow, steps)
