"""Commands of a session: each batch gets its own results from its own device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio import InvalidMessage, MessageTooLarge, QueueFull, RequestTimeout, TaskStatus
from galaxy_trio._codec.codec import encode
from galaxy_trio.messages import (
    ClientMessage,
    ClientMessageType,
    Command,
    CommandResult,
    ResultStatus,
    ToolType,
)
from galaxy_trio.server import ServerLimits, ServerTask
from tests.connection.support.recordings import text_frames
from tests.server.support.clients import (
    answer,
    end_of,
    open_clients,
    register_constellation,
    register_device,
    start_task,
)
from tests.server.support.commands import (
    CLICK,
    LOOK,
    actions_of,
    as_json,
    cast_list,
    cast_results,
    cast_results_of,
    click_and_look,
    result,
)
from tests.server.support.raw_client import Members, open_raw_client
from tests.server.support.recorded_session import recorded_session

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_commands_and_results_match_the_recording() -> None:
    task, accepted, command, results, end, end_for_device = (
        frame.json() for frame in text_frames("task_with_commands")
    )
    async with open_clients(recorded_session) as clients:
        await start_task(clients.constellation, str(accepted["session_id"]), str(task["request"]))
        came = await clients.device.receive()
        recorded = {name: value for name, value in command.items() if value is not None}
        ids = [action.pop("call_id") for action in actions_of(came)]
        for action in actions_of(recorded):
            action.pop("call_id")
        response_id = came.pop("response_id")
        assert recorded.pop("response_id") != response_id
        # The program's name, and the recorded task name.
        assert (came.pop("agent_name"), recorded.pop("agent_name")) == ("galaxy_trio", "EchoAgent")
        assert (came.pop("task_name"), recorded.pop("task_name")) == ("galaxy_demo@t4", "galaxy_demo_t4")
        recorded.pop("timestamp", None)
        assert came == recorded
        answers = cast_results(results["action_results"], ids)
        clients.device.send(**{**results, "prev_response_id": response_id, "action_results": answers})
        for client, expected in ((clients.constellation, end), (clients.device, end_for_device)):
            status, value, error = await end_of(client, str(expected["session_id"]))
            assert (status, error) == (expected["status"], expected.get("error"))
            assert value == {"results": cast_results(cast_results_of(expected), ids)}


async def test_command_keeps_its_call_id_or_gets_one() -> None:
    async with open_clients(click_and_look) as clients:
        await start_task(clients.constellation, "s")
        first, second = actions_of(await clients.device.receive())
        assert first == {
            "tool_name": "click",
            "tool_type": "action",
            "parameters": {"x": 3, "y": 4},
            "call_id": "call-1",
        }
        assert second["tool_name"] == "look"
        assert len(str(second["call_id"])) == 36


@pytest.mark.parametrize(("stop", "sent"), [(True, None), (False, False)])
async def test_only_going_on_after_a_failure_is_sent(stop: bool, sent: object) -> None:
    async def session(task: ServerTask) -> None:
        await task.execute([LOOK], stop_on_failure=stop)

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        assert (await clients.device.receive()).get("stop_on_failure") == sent


_ORDERS: dict[str, tuple[Callable[[object, object], list[Members]], list[object]]] = {
    "as they were asked for": (lambda a, b: [result(a, 1), result(b, 2)], [["success", 1], ["success", 2]]),
    "in the wrong order": (lambda a, b: [result(b, 2), result(a, 1)], [["success", 1], ["success", 2]]),
    "twice": (lambda a, b: [result(a, 1), result(a, 7), result(b, 2)], [["success", 1], ["success", 2]]),
    "one too few": (lambda _, b: [result(b, 2)], [["none", None], ["success", 2]]),
    "none at all": (lambda _a, _b: [], [["none", None], ["none", None]]),
    "for an unknown call too": (
        lambda a, b: [result("?", 9), result(b, 2), result(a, 1)],
        [["success", 1], ["success", 2]],
    ),
    "without call ids": (
        lambda _a, _b: [{"status": "success", "result": 1}, {"status": "failure", "result": 2}],
        [["success", 1], ["failure", 2]],
    ),
    "without call ids and too few": (
        lambda _a, _b: [{"status": "success", "result": 1}],
        [["success", 1], ["none", None]],
    ),
}


@pytest.mark.parametrize("order", _ORDERS)
async def test_each_command_gets_one_result_in_the_order_of_the_commands(order: str) -> None:
    results, expected = _ORDERS[order]
    async with open_clients(click_and_look) as clients:
        await start_task(clients.constellation, "s")
        command = await clients.device.receive()
        ids = [action["call_id"] for action in actions_of(command)]
        answer(clients.device, command, *results(*ids))
        status, value, _ = await end_of(clients.constellation, "s")
        assert status == "completed"
        received = cast_list(value)
        assert [[one[0], one[2]] for one in received] == expected
        assert [one[3] for one in received] == ids
        assert [one[1] for one in received] == [
            "the device sent no result for this command" if one[0] == "none" else None for one in received
        ]


async def test_results_for_no_pending_batch_are_counted_and_dropped() -> None:
    async with (
        open_clients(click_and_look) as clients,
        open_raw_client(clients.server.connect()) as other_device,
        open_raw_client(clients.server.connect()) as rival,
    ):
        await register_device(other_device, "device_002")
        await register_constellation(rival, "rival@device_001")
        await start_task(clients.constellation, "s")
        await start_task(rival, "r")
        commands = [await clients.device.receive() for _ in range(2)]
        first, other = sorted(commands, key=lambda command: command["session_id"] != "s")
        stolen = [result(action["call_id"], "stolen") for action in actions_of(first)]
        own = [result(action["call_id"], "own") for action in actions_of(first)]
        # From another device, for another session, for an unknown batch, without a batch.
        answer(other_device, first, *stolen)
        answer(clients.device, first, *stolen, session_id="r")
        answer(clients.device, first, *stolen, session_id=None)
        answer(clients.device, first, *stolen, prev_response_id="?")
        answer(clients.device, first, *stolen, prev_response_id=None)
        answer(rival, first, *stolen, client_type="constellation")
        answer(clients.device, first, *own)
        # A late duplicate.
        answer(clients.device, first, *stolen)
        status, value, _ = await end_of(clients.constellation, "s")
        assert (status, [one[2] for one in cast_list(value)]) == ("completed", ["own", "own"])
        await trio.testing.wait_all_tasks_blocked()
        statistics = clients.server.statistics()
        assert (statistics.unexpected_results, statistics.unanswered_commands) == (7, 1)
        answer(clients.device, other, *[result(action["call_id"], "r") for action in actions_of(other)])
        assert (await end_of(rival, "r"))[0] == "completed"
        assert clients.server.statistics().unanswered_commands == 0


async def test_broken_results_fail_their_batch_and_the_device_gets_an_error() -> None:
    async def session(task: ServerTask) -> object:
        with pytest.raises(
            InvalidMessage, match=r"the command results of device 'device_001' are broken: .*action_results"
        ) as caught:
            await task.execute([LOOK])
        assert caught.value.__context__ is None
        return "went on"

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        command = await clients.device.receive()
        answer(clients.device, command, session_id="another", action_results=5)
        answer(clients.device, command, prev_response_id="?", action_results=5)
        answer(clients.device, command, action_results=5)
        for _ in range(3):
            assert (await clients.device.receive())["type"] == "error"
        assert await end_of(clients.constellation, "s") == ("completed", "went on", None)


async def test_batches_of_one_task_may_be_answered_in_any_order() -> None:
    async def session(task: ServerTask) -> object:
        outcomes: dict[str, object] = {}

        async def run(number: int) -> None:
            [one] = await task.execute([Command(f"tool_{number}", ToolType.ACTION)])
            outcomes[str(number)] = one.result

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(run, number)
        return outcomes

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        commands = [await clients.device.receive() for _ in range(50)]
        assert clients.server.statistics().unanswered_commands == 50
        for command in reversed(commands):
            [action] = actions_of(command)
            answer(clients.device, command, result(action["call_id"], action["tool_name"]))
        _, value, _ = await end_of(clients.constellation, "s")
        assert value == {str(number): f"tool_{number}" for number in range(50)}


async def test_unanswered_batch_raises_request_timeout_and_its_late_results_are_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def session(task: ServerTask) -> object:
        start = trio.current_time()
        with pytest.raises(RequestTimeout, match="device 'device_001' did not answer 2 commands within 5 s"):
            await task.execute([LOOK, CLICK], timeout=5)
        assert trio.current_time() - start == 5
        return "gave up"

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        command = await clients.device.receive()
        assert await end_of(clients.constellation, "s") == ("completed", "gave up", None)
        assert await end_of(clients.device, "s") == ("completed", "gave up", None)
        answer(clients.device, command, result("call-1"))
        await trio.testing.wait_all_tasks_blocked()
        statistics = clients.server.statistics()
        assert (statistics.unexpected_results, statistics.unanswered_commands) == (1, 0)


async def test_cancelling_a_batch_leaves_nothing_pending_and_the_session_continues() -> None:
    async def session(task: ServerTask) -> object:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task.execute, [LOOK])
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        return "went on"

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        assert (await clients.device.receive())["type"] == "command"
        assert await end_of(clients.constellation, "s") == ("completed", "went on", None)
        assert clients.server.statistics().unanswered_commands == 0


async def test_batches_above_the_limit_are_refused_before_anything_is_sent() -> None:
    refusals: list[str] = []

    async def session(task: ServerTask) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(task.execute, [LOOK])
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(QueueFull) as caught:
                await task.execute([CLICK])
            refusals.append(str(caught.value))

    async with open_clients(session, ServerLimits(max_unanswered_commands=3)) as clients:
        await start_task(clients.constellation, "s")
        commands = [await clients.device.receive() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        for command in commands:
            answer(clients.device, command, result(actions_of(command)[0]["call_id"]))
        # After the three batches, only the end was sent.
        assert (await end_of(clients.device, "s"))[0] == "completed"
        assert refusals == ["device 'device_001' has left 3 batches of commands unanswered: nothing was sent"]


async def test_empty_batch_sends_no_message() -> None:
    async def session(task: ServerTask) -> object:
        return [as_json(one) for one in await task.execute([])]

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        assert await end_of(clients.device, "s") == ("completed", [], None)


_WRONG: dict[str, tuple[Callable[[ServerTask], object], type[Exception], str]] = {
    "the same call id twice": (lambda task: task.execute([CLICK, CLICK]), ValueError, "same call_id"),
    "too many": (lambda task: task.execute([LOOK] * 10_001), ValueError, "at most 10,000"),
    "no timeout": (lambda task: task.execute([LOOK], timeout=math.nan), ValueError, "timeout is a number"),
    "what JSON cannot hold": (
        lambda task: task.execute([Command("t", ToolType.ACTION, {"x": cast("str", object())})]),
        InvalidMessage,
        "cannot send a command",
    ),
    "too large": (
        lambda task: task.execute([Command("t", ToolType.ACTION, {"x": "x" * 3000})]),
        MessageTooLarge,
        "limit of 3000",
    ),
}


@pytest.mark.parametrize("what", _WRONG)
async def test_unsendable_commands_raise_in_the_session_and_nothing_is_sent(what: str) -> None:
    call, error, words = _WRONG[what]

    async def session(task: ServerTask) -> object:
        with pytest.raises(error, match=words):
            await cast("trio.abc.AsyncResource", call(task))  # type: ignore[misc]
        return "well"

    async with open_clients(session, ServerLimits(max_message_size=3000)) as clients:
        await start_task(clients.constellation, "s")
        assert await end_of(clients.device, "s") == ("completed", "well", None)
        assert clients.server.statistics().unanswered_commands == 0


async def test_device_runs_the_commands_of_its_own_task() -> None:
    async with open_clients(click_and_look) as clients:
        clients.device.send(type="task", status="continue", session_id="own", request="x")
        assert (await clients.device.receive())["session_id"] == "own"
        command = await clients.device.receive()
        assert "task_name" not in command
        answer(clients.device, command, *[result(action["call_id"], 1) for action in actions_of(command)])
        assert (await end_of(clients.device, "own"))[0] == "completed"


async def test_results_survive_the_wire_unchanged() -> None:
    received: list[list[CommandResult]] = []
    sent = CommandResult(ResultStatus.FAILURE, "no such window", {"tried": [1, 2.5, None]}, "ui", "call-1")

    async def session(task: ServerTask) -> None:
        received.append(await task.execute([CLICK]))

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        command = await clients.device.receive()
        message = ClientMessage(
            ClientMessageType.COMMAND_RESULTS,
            TaskStatus.CONTINUE,
            session_id="s",
            prev_response_id=str(command["response_id"]),
            action_results=[sent],
        )
        clients.device.send_text(encode(message))
        await end_of(clients.constellation, "s")
        assert received == [[sent]]
