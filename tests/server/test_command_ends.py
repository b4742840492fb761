"""Commands when their device, session or results end early."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, InvalidMessage
from galaxy_trio.messages import (
    ClientMessage,
    ClientMessageType,
    CommandResult,
    ResultStatus,
    TaskStatus,
)
from galaxy_trio.server import ServerTask
from galaxy_trio.server.pending_commands import PendingCommands
from tests.server.support.clients import DEVICE, end_of, open_clients, start_task
from tests.server.support.commands import CLICK, LOOK


async def test_device_lost_between_command_and_result_fails_the_task_with_a_reason() -> None:
    raised: list[BaseException] = []

    async def session(task: ServerTask) -> None:
        try:
            with trio.CancelScope(shield=True):
                await task.execute([LOOK])
        except ConnectionLost as lost:
            raised.append(lost)
            raise

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        assert (await clients.device.receive())["type"] == "command"
        await clients.device.abort()
        assert await end_of(clients.constellation, "s") == (
            "failed",
            {},
            "Task was cancelled because target device disconnected",
        )
        await trio.testing.wait_all_tasks_blocked()
        # A session that ignores its cancellation gets the error too.
        assert [type(error) for error in raised] == [ConnectionLost]
        assert clients.server.statistics().ending_sessions == 0


async def test_ended_session_cannot_run_commands() -> None:
    kept: list[ServerTask] = []
    refused: list[str] = []

    async def session(task: ServerTask) -> None:
        kept.append(task)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(60):
                try:
                    await task.execute([LOOK])
                except trio.ClosedResourceError as error:
                    refused.append(str(error))

    async with open_clients(session) as clients:
        await start_task(clients.constellation, "s")
        await trio.testing.wait_all_tasks_blocked()
        await clients.constellation.close()
        # The device receives only the end.
        assert (await end_of(clients.device, "s"))[0] == "failed"
        await trio.testing.wait_all_tasks_blocked()
        assert refused == ["session 's' has ended: it cannot run commands any more"]
        with pytest.raises(trio.ClosedResourceError, match="has ended"):
            await kept[0].execute([LOOK])
        with pytest.raises(trio.ClosedResourceError, match="runs on no device"):
            await ServerTask("s", "", DEVICE, "c").execute([LOOK])


def test_batch_is_answered_once_even_if_two_replies_come_before_it_is_read() -> None:
    unanswered = PendingCommands(DEVICE)
    batch = unanswered.register("r", "s", [CLICK])
    first = ClientMessage(
        ClientMessageType.COMMAND_RESULTS,
        TaskStatus.CONTINUE,
        session_id="s",
        prev_response_id="r",
        action_results=[CommandResult(ResultStatus.SUCCESS, result="first", call_id="call-1")],
    )
    assert unanswered.route(first)
    assert not unanswered.route(first)
    assert not unanswered.route_invalid(InvalidMessage("broken", response_id="r", session_id="s"))
    unanswered.register("another", "s", [CLICK])
    unanswered.close(lambda: ConnectionLost("gone"))
    assert (len(unanswered), unanswered.unexpected_results) == (0, 1)
    [one] = trio.run(batch.receive)
    assert one.result == "first"
