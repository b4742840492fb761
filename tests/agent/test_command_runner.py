"""Commands become results, also when their tool fails."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio.agent import Tool, tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON, CommandResult, ToolType
from tests.agent.support.agent_server import call, open_commanded_agent, receive_results, results_of, send_batch
from tests.agent.support.tools import FAILURE, SUCCESS, Own, echo, fail, failure_of
from tests.connection.support.recordings import text_frames


async def test_results_match_the_recording() -> None:
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


async def test_commands_run_in_order_and_each_gets_its_result() -> None:
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


async def test_each_reply_has_a_new_request_id() -> None:
    async with open_commanded_agent() as (peer, _, _):
        ids: set[str | None] = set()
        for _ in range(3):
            send_batch(peer)
            ids.add((await peer.receive()).request_id)
    assert len(ids) == 3


async def test_batch_without_commands_has_no_results() -> None:
    async with open_commanded_agent() as (peer, _, _):
        assert await results_of(peer) == []
        peer.send_json({"type": "command", "status": "continue", "session_id": "s", "response_id": "r"})
        assert await receive_results(peer, "r") == []


async def test_tool_type_of_a_command_is_ignored() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        [result] = await results_of(peer, {**call("echo", value=1), "tool_type": "data_collection"})
        assert result.result == 1


async def test_command_without_parameters_and_call_id_is_run() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        [result] = await results_of(peer, {"tool_name": "echo", "call_id": None})
        assert result == CommandResult(SUCCESS)


async def test_result_contains_the_tools_namespace() -> None:
    async with open_commanded_agent([Own([1])]) as (peer, _, _):
        assert await results_of(peer, call("own")) == [CommandResult(SUCCESS, None, [1], "mine", "c0")]


async def test_result_is_copied_when_it_is_returned() -> None:
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


async def test_results_are_converted_to_json() -> None:
    async with open_commanded_agent([Own({1: (ToolType.ACTION, True, 2.5, None)})]) as (peer, _, _):
        [result] = await results_of(peer, call("own"))
        assert result.result == {"1": ["action", True, 2.5, None]}


async def test_unknown_tool_fails_the_command() -> None:
    async with open_commanded_agent([echo]) as (peer, _, _):
        results = await results_of(peer, call("eccho"), call("x" * 10_000), stop_on_failure=False)
        assert results[0].error == "there is no tool 'eccho' on this device; did you mean 'echo'?"
        assert (results[1].error or "").endswith("xxx' on this device; known: 'list_tools', 'echo'")
        assert len(results[1].error or "") < 150


async def test_wrong_parameters_fail_the_command() -> None:
    @tool
    async def press(count: int) -> None:
        raise AssertionError("not reached")

    said = await failure_of(press, count="5")
    assert said == "wrong parameters for tool 'press': count: expected an integer, got the string '5'"


async def test_exception_of_a_tool_becomes_one_line_and_its_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    async def press() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("no\nsuch   key")

    assert await failure_of(press) == "ValueError: no such key"
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.message == "tool 'press' raised"
    assert record.exc_info is not None
    assert "Traceback" in caplog.text


async def test_text_of_a_tool_error_is_sent_and_logged_on_one_line_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "galaxy_trio.agent")
    assert await failure_of(fail, why="there is no window\nof that name") == "there is no window of that name"
    assert "tool 'fail': there is no window of that name" in [record.getMessage() for record in caplog.records]
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
        (ToolError("there is no such key"), "there is no such key"),
        (ToolError(), "ToolError"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_any_exception_of_a_tool_fails_its_command(error: BaseException, said: str, in_thread: bool) -> None:
    def raising() -> None:
        raise error

    async def raising_here() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    assert await failure_of(tool(raising) if in_thread else tool(raising_here)) == said


@pytest.mark.parametrize("base", [Exception, ToolError])
async def test_exception_whose_str_raises_is_reported_by_its_type(base: type[Exception]) -> None:
    class Mute(base):  # type: ignore[misc, valid-type]  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
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


async def test_long_error_is_shortened() -> None:
    said = await failure_of(fail, why="x " * 10_000_000)
    assert len(said) == 500


async def test_keyboard_interrupt_in_a_tool_ends_the_agent() -> None:
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
        (10**300, "an integer of more than 300 digits"),
        ([-(10**300)], "an integer of more than 300 digits"),
    ],
    ids=["object", "nan", "set", "tuple as key", "surrogate", "bytes", "integer", "integer in a list"],
)
async def test_result_that_is_not_json_fails_its_command(result: object, said: str) -> None:
    assert (await failure_of(Own(result))).startswith(f"the result of tool 'own' cannot be sent: {said}")


async def test_result_nested_too_deep_or_in_a_cycle_fails_its_command() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert await failure_of(Own(deep)) == "the result of tool 'own' cannot be sent: nested too deep"
    deep = []
    deep.append(deep)
    assert await failure_of(Own(deep)) == "the result of tool 'own' cannot be sent: Circular reference detected"


@pytest.mark.parametrize(("text", "size"), [("x" * 3000, 3002), ("ü" * 1500, 3002)])
async def test_result_above_the_message_limit_fails_its_command(text: str, size: int) -> None:
    said = await failure_of(Own(text), device={"options": ConnectionOptions(max_message_size=2000)})
    assert said == f"the result of tool 'own' has {size} bytes: a message has at most 2000"


async def test_largest_results_fail_until_the_rest_fits_into_a_message() -> None:
    @tool
    async def repeat(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "ü" * (count // 2)

    async with open_commanded_agent([repeat], options=ConnectionOptions(max_message_size=4000)) as (peer, agent, _):
        sizes = [1000, 1800, 10, 1500, 900]
        results = await results_of(peer, *[call("repeat", count=size) for size in sizes])
        assert [result.status for result in results] == [SUCCESS, FAILURE, SUCCESS, SUCCESS, SUCCESS]
        failed = results[1]
        assert failed.error == "its result of 1,847 bytes does not fit into the batch's reply"
        assert failed.call_id == "c1"
        assert agent.statistics().failures == 1
        # No more than necessary.
        results = await results_of(peer, *[call("repeat", count=1200) for _ in range(6)])
        assert [result.status for result in results].count(SUCCESS) == 2


async def test_result_that_a_failure_would_enlarge_stays_and_a_smaller_one_is_replaced() -> None:
    @tool
    async def repeat(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * count

    async with open_commanded_agent([repeat], options=ConnectionOptions(max_message_size=4000)) as (peer, _, _):
        # Its id makes the first result the largest.
        commands = [{**call("repeat", count=1), "call_id": "i" * 2400}, call("repeat", count=1500)]
        results = await results_of(peer, *commands)
        assert [result.status for result in results] == [SUCCESS, FAILURE]


async def test_results_that_just_fit_are_sent_and_one_byte_more_fails_one() -> None:
    @tool
    async def repeat(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * count

    async with open_commanded_agent([repeat], options=ConnectionOptions(max_message_size=4000)) as (peer, _, _):

        async def answer_to(first: int) -> tuple[int, list[str]]:
            commands = [call("repeat", count=count) for count in (first, 400, 400, 400, 400, 400)]
            # A fixed id, because replies repeat it and their size counts.
            send_batch(peer, *commands, response_id="r")
            text = await peer.receive_text()
            return len(text), [result["status"] for result in json.loads(text)["action_results"]]

        size, _ = await answer_to(500)
        most = 500 + 4000 - size
        assert await answer_to(most) == (4000, ["success"] * 6)
        _, statuses = await answer_to(most + 1)
        assert statuses == ["failure"] + ["success"] * 5


async def test_reply_has_only_an_error_when_not_even_the_failures_fit() -> None:
    async with open_commanded_agent(options=ConnectionOptions(max_message_size=2000)) as (peer, agent, _):
        actions = [{"tool_name": "x", "tool_type": "action"}] * 35
        peer.send_json({"type": "command", "status": "ok", "response_id": "r", "session_id": "s", "actions": actions})
        answer = await peer.receive()
        assert (answer.action_results, answer.prev_response_id) == ([], "r")
        assert answer.error == "35 results of commands do not fit into a message of 2000 bytes"
        assert agent.registered


async def test_results_whose_ids_leave_no_room_are_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with open_commanded_agent([echo], options=ConnectionOptions(max_message_size=2000)) as (peer, agent, _):
        send_batch(peer, call("echo"), session_id="s" * 1750)
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received_nowait() == []
        assert await results_of(peer) == []
        assert agent.registered
    assert "a reply was dropped: a message of " in caplog.text


@pytest.mark.parametrize("namespace", ["\ud800", object()], ids=["surrogate", "object"])
async def test_unsendable_namespace_fails_the_command(namespace: object) -> None:
    said = await failure_of(Own(1, namespace=namespace))
    assert said.startswith("the result cannot be sent: cannot send a command_results message: ")


@pytest.mark.parametrize("timeout", [math.nan, "long"])
async def test_invalid_timeout_of_a_tool_fails_the_command(timeout: Any) -> None:
    assert await failure_of(Own(1, timeout=timeout))


async def test_tool_that_returns_no_awaitable_fails_the_command() -> None:
    def give(_: object) -> int:
        return 5

    own = SimpleNamespace(name="own", namespace=None, tool_type=ToolType.ACTION, timeout=60.0, call=give)
    assert (await failure_of(cast("Tool", own))).startswith("TypeError: ")
