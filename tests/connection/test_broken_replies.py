"""A broken reply ends the request that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from galaxy_trio._codec.codec import decode_server_message
from galaxy_trio.errors import InvalidMessage
from tests.connection.support.replies import (
    DELIVERED,
    DEVICE_INFO,
    DUPLICATE,
    REGISTRATION,
    TASK,
    UNATTRIBUTED,
    ask,
    broken,
    counted,
    end,
    received,
    refusal,
    rejection,
    table,
)

if TYPE_CHECKING:
    from galaxy_trio._connection.request_types import RequestKind


@pytest.mark.parametrize(
    ("kind", "invalid"),
    [
        (DEVICE_INFO, broken("device_info_response", response_id="k")),
        (DEVICE_INFO, broken(response_id="k")),
        (TASK, broken("task_end", session_id="k")),
        (TASK, broken("heartbeat", session_id="k")),
        (TASK, broken(session_id="k")),
        (TASK, broken("task_end", session_id="k", response_id="fresh")),
        (DEVICE_INFO, broken("device_info_response", session_id="unknown", response_id="k")),
    ],
)
def test_a_broken_reply_ends_the_request_that_it_names(kind: RequestKind, invalid: InvalidMessage) -> None:
    replies = table()
    request, other = ask(replies, kind, "k"), ask(replies, kind, "other")
    assert replies.route_invalid(invalid) is DELIVERED
    (reply,) = received(request)
    assert type(reply) is InvalidMessage
    assert str(reply) == f"the reply to the {kind.value} for device 'device_001' is broken: {invalid}"
    assert (reply.type, reply.session_id, reply.response_id) == (invalid.type, invalid.session_id, invalid.response_id)
    assert received(other) == []
    assert counted(replies) == {"pending": 1, "unanswered": 1, "invalid_messages": 1}


def test_a_broken_reply_that_names_two_requests_ends_the_information_request() -> None:
    replies = table()
    request, task = ask(replies, DEVICE_INFO, "q1"), ask(replies, TASK, "s1")
    assert replies.route_invalid(broken(response_id="q1", session_id="s1")) is DELIVERED
    assert (len(received(request)), len(received(task))) == (1, 0)


def test_a_broken_reply_is_delivered_without_frames_that_hold_the_message() -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    with pytest.raises(InvalidMessage) as caught:
        decode_server_message('{"type":"device_info_response","response_id":"q1","status":"' + "x" * 1000)
    assert replies.route_invalid(caught.value) is DELIVERED
    (reply,) = received(request)
    assert isinstance(reply, InvalidMessage)
    assert reply is not caught.value
    assert (reply.__traceback__, reply.__cause__, reply.__context__) == (None, None, None)


@pytest.mark.parametrize(
    "invalid",
    [
        broken(),
        broken("task_end"),
        broken(response_id="unknown", session_id="unknown"),
        broken(response_id="", session_id=""),
        broken("device_info_response", response_id="s1"),
        broken("task_end", session_id="q1"),
        broken("heartbeat", session_id="registration", response_id="registration"),
    ],
)
def test_a_broken_message_that_names_no_request_is_unattributed(invalid: InvalidMessage) -> None:
    replies = table()
    task, request = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")
    ask(replies, REGISTRATION)
    assert replies.route_invalid(invalid) is UNATTRIBUTED
    assert received(task) == received(request) == []
    assert counted(replies) == {"pending": 3, "unanswered": 3, "invalid_messages": 1}


def test_any_broken_message_answers_a_registration_that_is_the_oldest_request() -> None:
    replies = table()
    registration = ask(replies, REGISTRATION)
    assert replies.route_invalid(broken("heartbeat")) is DELIVERED
    [reply] = received(registration)
    assert isinstance(reply, InvalidMessage)
    assert replies.route_invalid(broken("heartbeat")) is UNATTRIBUTED


def test_a_broken_reply_to_an_ended_or_abandoned_request_is_unattributed() -> None:
    replies = table()
    ended, abandoned = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(end("s1"))
    replies.abandon(abandoned)
    assert replies.route_invalid(broken("task_end", session_id="s1")) is UNATTRIBUTED
    assert replies.route_invalid(broken("task_end", session_id="s2")) is UNATTRIBUTED
    assert len(received(ended)) == 1
    assert counted(replies) == {"unanswered": 1, "invalid_messages": 2}


def test_a_request_receives_nothing_after_a_broken_reply() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    replies.route_invalid(broken("heartbeat", session_id="s1"))
    assert replies.route(end("s1")) is DUPLICATE
    assert replies.route_invalid(broken("task_end", session_id="s1")) is UNATTRIBUTED
    assert len(received(task)) == 1


def test_a_broken_first_reply_ends_the_places_before_it() -> None:
    replies = table()
    overtaken, task, refused = (ask(replies, TASK, key) for key in "abc")
    replies.route_invalid(broken("heartbeat", session_id="b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert (received(overtaken), len(received(task))) == ([], 1)


def test_a_broken_late_reply_ends_the_place_of_its_request() -> None:
    replies = table()
    abandoned, refused = ask(replies, DEVICE_INFO, "a"), ask(replies, TASK, "b")
    replies.abandon(abandoned)
    assert replies.route_invalid(broken("device_info_response", response_id="a")) is UNATTRIBUTED
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"


def test_the_broken_end_of_a_task_keeps_the_places_of_older_messages() -> None:
    replies = table()
    refused, task = ask(replies, TASK, "a"), ask(replies, TASK, "b")
    replies.route_invalid(broken("task_end", session_id="b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(task)) == 1
    assert counted(replies) == {"invalid_messages": 1}
