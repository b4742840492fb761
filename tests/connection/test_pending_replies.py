"""Each kind of request receives its replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.request_types import PendingStatistics, RequestKind
from galaxy_trio.errors import RegistrationRejected, RequestRejected
from galaxy_trio.messages import TaskStatus
from tests.connection.support.replies import (
    DELIVERED,
    DEVICE_INFO,
    LATE,
    REGISTRATION,
    TASK,
    UNKNOWN,
    acknowledgement,
    ask,
    counted,
    end,
    heartbeat,
    information,
    received,
    refusal,
    rejection,
    table,
)

if TYPE_CHECKING:
    from galaxy_trio._connection.request_types import Reply


NOTHING = PendingStatistics(
    pending=0,
    unanswered=0,
    late_replies=0,
    duplicate_replies=0,
    unknown_replies=0,
    invalid_messages=0,
    unattributed_errors=0,
    forgotten=0,
)


def test_a_heartbeat_without_a_session_confirms_the_registration() -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    confirmation = heartbeat()
    assert replies.route(confirmation) is DELIVERED
    assert received(request) == [confirmation]
    assert counted(replies) == {}


def test_an_error_refuses_the_registration_with_the_servers_words() -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    assert replies.route(refusal("already registered")) is DELIVERED
    (reply,) = received(request)
    assert type(reply) is RegistrationRejected
    assert reply.words == "already registered"
    assert str(reply) == (
        "the server refused the registration for device 'device_001': already registered; "
        "another client uses this name, or the server has not noticed yet that it left"
    )
    assert counted(replies) == {}


def test_an_error_holds_at_most_64_kib_of_the_servers_words() -> None:
    for kind in (REGISTRATION, DEVICE_INFO):
        replies = table()
        request = ask(replies, kind, "r1")
        assert replies.route(refusal("Ä" * 2**20)) is DELIVERED
        assert rejection(request) == "Ä" * 2**16


@pytest.mark.parametrize(("error", "words"), [("go away", "go away"), (None, "status failed"), ("", "status failed")])
def test_a_heartbeat_with_a_status_other_than_ok_refuses_the_registration(error: str | None, words: str) -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    assert replies.route(heartbeat(TaskStatus.FAILED, error)) is DELIVERED
    assert rejection(request) == words
    assert counted(replies) == {}


def test_the_confirmation_of_an_abandoned_registration_is_late() -> None:
    replies = table()
    replies.abandon(ask(replies, REGISTRATION))
    assert replies.route(heartbeat()) is LATE
    assert replies.route(heartbeat()) is UNKNOWN
    assert counted(replies) == {"late_replies": 1, "unknown_replies": 1}


def test_a_task_receives_its_acknowledgement_and_its_end() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    accepted, ended = acknowledgement("s1"), end("s1", "done")
    assert replies.route(accepted) is DELIVERED
    assert counted(replies) == {"pending": 1}
    assert replies.route(ended) is DELIVERED
    assert counted(replies) == {}
    assert received(task) == [accepted, ended]


def test_a_task_that_ends_before_its_acknowledgement_receives_only_its_end() -> None:
    replies = table()
    task, ended = ask(replies, TASK, "s1"), end("s1")
    assert replies.route(ended) is DELIVERED
    assert counted(replies) == {}
    assert replies.route(acknowledgement("s1")) is DELIVERED
    assert received(task) == [ended]
    assert counted(replies) == {}


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.ERROR, TaskStatus.COMPLETED])
def test_a_task_receives_its_end_unchanged_whatever_the_status(status: TaskStatus) -> None:
    replies = table()
    task, ended = ask(replies, TASK, "s1"), end("s1", {"error": "no"}, status)
    assert replies.route(ended) is DELIVERED
    assert received(task) == [ended]


def test_tasks_end_in_any_order_each_with_its_own_result() -> None:
    replies = table()
    tasks = {key: ask(replies, TASK, key) for key in "abc"}
    for key in "abc":
        replies.route(acknowledgement(key))
    ends = {key: end(key, f"result of {key}") for key in "bca"}
    assert [replies.route(message) for message in ends.values()] == [DELIVERED] * 3
    assert all(received(tasks[key])[1] is ends[key] for key in "abc")


def test_device_information_in_any_order_reaches_the_request_that_it_names() -> None:
    replies = table()
    requests = {key: ask(replies, DEVICE_INFO, key) for key in "abc"}
    answers = {key: information(key, {"device_id": key}) for key in "cab"}
    assert [replies.route(message) for message in answers.values()] == [DELIVERED] * 3
    assert all(received(requests[key]) == [answers[key]] for key in "abc")
    assert counted(replies) == {}


def test_device_information_with_only_an_error_rejects_the_request() -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    assert replies.route(information("q1", {"error": "Device not found"})) is DELIVERED
    (reply,) = received(request)
    assert type(reply) is RequestRejected
    assert reply.words == "Device not found"
    assert str(reply) == "the server refused the device information request for device 'device_001': Device not found"


def test_device_information_with_an_error_and_a_device_id_is_delivered() -> None:
    replies = table()
    request, answer = ask(replies, DEVICE_INFO, "q1"), information("q1", {"device_id": "d", "error": "disk full"})
    assert replies.route(answer) is DELIVERED
    assert received(request) == [answer]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (TaskStatus.ERROR, "no such device", "no such device"),
        (TaskStatus.FAILED, "no such device", "no such device"),
        (TaskStatus.ERROR, None, "status error"),
        (TaskStatus.FAILED, "", "status failed"),
    ],
)
def test_device_information_with_a_failure_status_rejects_the_request(
    status: TaskStatus, error: str | None, words: str
) -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    assert replies.route(information("q1", status=status, error=error)) is DELIVERED
    assert rejection(request) == words


@pytest.mark.parametrize("words", [None, "", " \n"])
def test_a_refusal_without_a_reason_says_so(words: str | None) -> None:
    replies = table()
    request = ask(replies, TASK, "s1")
    replies.route(refusal(words))
    (reply,) = received(request)
    assert str(reply) == "the server refused the task for device 'device_001': it gave no reason"


def test_a_refusal_quotes_500_characters_on_one_line_and_keeps_all_words() -> None:
    replies = table()
    request, words = ask(replies, TASK, "s1"), "a\n b\t" + "x" * 10_000
    replies.route(refusal(words))
    (reply,) = received(request)
    assert isinstance(reply, RequestRejected)
    assert str(reply) == f"the server refused the task for device 'device_001': a b {'x' * 495}"
    assert reply.words == words


def test_all_statistics_start_at_zero() -> None:
    assert table().statistics() == NOTHING


async def test_replies_are_received_in_the_order_of_their_arrival() -> None:
    replies = table()
    task, accepted, ended = ask(replies, TASK, "s1"), acknowledgement("s1"), end("s1")
    replies.route(accepted)
    replies.route(ended)
    with trio.fail_after(60):
        assert [await task.receive(), await task.receive()] == [accepted, ended]


async def test_a_reply_wakes_its_waiter() -> None:
    replies = table()
    request, answer = ask(replies, DEVICE_INFO, "q1"), information("q1")
    got: list[Reply] = []

    async def wait() -> None:
        got.append(await request.receive())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            replies.route(answer)
    assert got == [answer]


async def test_cancelling_a_wait_loses_no_reply(autojump_clock: trio.testing.MockClock) -> None:
    replies = table()
    request, answer = ask(replies, DEVICE_INFO, "q1"), information("q1")
    with trio.move_on_after(1) as scope:
        await request.receive()
    assert scope.cancelled_caught
    replies.route(answer)
    with trio.move_on_after(0) as scope:
        await request.receive()
    assert scope.cancelled_caught
    with trio.fail_after(1):
        assert await request.receive() is answer


async def test_waiting_for_an_abandoned_request_raises_immediately() -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    replies.route(information("q1"))
    replies.abandon(request)
    with trio.fail_after(60), pytest.raises(trio.ClosedResourceError, match="this request was abandoned"):
        await request.receive()


def test_registering_a_heartbeat_raises() -> None:
    with pytest.raises(ValueError, match="a heartbeat has no caller"):
        PendingReplies("device_001").register(RequestKind.HEARTBEAT)
