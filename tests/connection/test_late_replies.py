"""Late, duplicate and unknown replies are counted and delivered to no request."""

from __future__ import annotations

import pytest

from galaxy_trio.messages import ServerMessage, ServerMessageType, TaskStatus
from tests.connection.support.replies import (
    DELIVERED,
    DEVICE_INFO,
    DUPLICATE,
    LATE,
    REGISTRATION,
    TASK,
    UNATTRIBUTED,
    UNKNOWN,
    acknowledgement,
    ask,
    broken,
    counted,
    end,
    heartbeat,
    information,
    received,
    refusal,
    table,
)


def test_replies_to_an_abandoned_task_are_late_once_and_then_duplicates() -> None:
    replies = table()
    replies.abandon(ask(replies, TASK, "s1"))
    assert counted(replies) == {"unanswered": 1}
    assert [replies.route(acknowledgement("s1")) for _ in range(2)] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 1, "duplicate_replies": 1}
    assert [replies.route(end("s1")) for _ in range(2)] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 2, "duplicate_replies": 2}


def test_replies_to_an_abandoned_information_request_are_late_once_and_then_duplicates() -> None:
    replies = table()
    replies.abandon(ask(replies, DEVICE_INFO, "q1"))
    assert [replies.route(information("q1")), replies.route(information("q1", {"error": "no"}))] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 1, "duplicate_replies": 1}


def test_the_end_of_a_task_abandoned_after_its_acknowledgement_is_late() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    replies.route(acknowledgement("s1"))
    replies.abandon(task)
    assert [replies.route(end("s1")), replies.route(acknowledgement("s1"))] == [LATE, DUPLICATE]


def test_a_repeated_reply_is_a_duplicate_and_is_not_delivered_again() -> None:
    replies = table()
    task, request = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")
    messages = [acknowledgement("s1"), end("s1"), information("q1")]
    assert [replies.route(message) for message in messages] == [DELIVERED] * 3
    assert [replies.route(message) for message in messages] == [DUPLICATE] * 3
    assert (len(received(task)), len(received(request))) == (2, 1)
    replies.abandon(task)
    replies.abandon(request)
    assert [replies.route(message) for message in messages] == [DUPLICATE] * 3
    assert counted(replies) == {"duplicate_replies": 6}


def test_a_duplicate_acknowledgement_of_a_running_task_is_not_delivered() -> None:
    replies = table()
    task, accepted, ended = ask(replies, TASK, "s1"), acknowledgement("s1"), end("s1")
    assert [replies.route(message) for message in (accepted, accepted, ended)] == [DELIVERED, DUPLICATE, DELIVERED]
    assert received(task) == [accepted, ended]


@pytest.mark.parametrize(
    "message",
    [
        acknowledgement("unknown"),
        acknowledgement(""),
        end("unknown"),
        end(None),
        end(""),
        information("unknown"),
        information(None),
        heartbeat(),
        *(
            ServerMessage(type_, TaskStatus.CONTINUE, session_id="s1", response_id="q1")
            for type_ in (ServerMessageType.TASK, ServerMessageType.COMMAND, ServerMessageType.DEVICE_INFO_REQUEST)
        ),
        information("s1"),
        acknowledgement("q1"),
        end("q1"),
        end("registration"),
        information("registration"),
    ],
)
def test_a_message_that_answers_no_request_is_unknown_and_changes_nothing(message: ServerMessage) -> None:
    replies = table()
    ask(replies, REGISTRATION)
    replies.route(heartbeat())
    task, request = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")
    assert replies.route(message) is UNKNOWN
    assert counted(replies) == {"pending": 2, "unanswered": 2, "unknown_replies": 1}
    assert received(task) == received(request) == []


def test_no_message_answers_a_request_that_was_not_handed_over() -> None:
    replies = table()
    task, request = replies.register(TASK, "s1"), replies.register(DEVICE_INFO, "q1")
    assert counted(replies) == {"pending": 2}
    messages = [acknowledgement("s1"), end("s1"), information("q1")]
    assert [replies.route(message) for message in messages] == [UNKNOWN] * 3
    assert replies.route(refusal()) is UNATTRIBUTED
    assert [replies.route_invalid(invalid) for invalid in (broken(session_id="s1"), broken(response_id="q1"))] == [
        UNATTRIBUTED
    ] * 2
    assert received(task) == received(request) == []
    replies.abandon(task)
    assert replies.route(end("s1")) is UNKNOWN
    assert counted(replies)["pending"] == 1
