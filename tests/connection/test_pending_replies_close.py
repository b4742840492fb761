"""Closing ends every request with an error of its own."""

from __future__ import annotations

import pytest

from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio.errors import ConnectionLost
from galaxy_trio.messages import ServerMessage
from tests.connection.support.replies import (
    DEVICE_INFO,
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


def connection_lost() -> ConnectionLost:
    return ConnectionLost("the connection is gone")


def test_closing_ends_every_request_with_an_error_of_its_own() -> None:
    replies = table()
    requests = [ask(replies, REGISTRATION), ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    never_sent = replies.register(TASK, "s2")
    replies.hand_over_heartbeat()
    replies.close(connection_lost)
    errors = [reply for request in [*requests, never_sent] for reply in received(request)]
    assert [type(error) for error in errors] == [ConnectionLost] * 4
    assert len({id(error) for error in errors}) == 4
    assert counted(replies) == {}


def test_an_unread_acknowledgement_precedes_the_error_of_closing() -> None:
    replies = table()
    task, accepted = ask(replies, TASK, "s1"), acknowledgement("s1")
    replies.route(accepted)
    replies.close(connection_lost)
    first, second = received(task)
    assert first is accepted
    assert type(second) is ConnectionLost


def test_closing_delivers_nothing_to_ended_or_abandoned_requests() -> None:
    replies = table()
    ended, abandoned = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(end("s1"))
    replies.abandon(abandoned)
    replies.close(connection_lost)
    assert [type(reply) for reply in received(ended)] == [ServerMessage]
    replies.abandon(ended)
    replies.abandon(abandoned)
    assert counted(replies) == {}


def test_a_second_close_changes_nothing() -> None:
    replies = table()
    request = ask(replies, TASK, "s1")
    replies.close(connection_lost)
    replies.close(lambda: ZeroDivisionError("another reason"))
    assert [type(reply) for reply in received(request)] == [ConnectionLost]
    with pytest.raises(ConnectionLost):
        replies.check()


def test_each_registration_after_closing_raises_its_own_error() -> None:
    replies = table(max_pending=1)
    ask(replies, TASK, "s1")
    replies.close(connection_lost)
    caught: list[ConnectionLost] = []
    for attempt in (replies.check, lambda: replies.register(TASK, "s1"), lambda: replies.register(DEVICE_INFO, "q1")):
        with pytest.raises(ConnectionLost) as info:
            attempt()
        caught.append(info.value)
    assert len({id(error) for error in caught}) == 3
    assert counted(replies) == {}


@pytest.mark.parametrize("message", [acknowledgement("s1"), end("s1"), information("q1"), heartbeat(), refusal()])
def test_a_message_after_closing_is_unknown_and_not_counted(message: ServerMessage) -> None:
    replies = table()
    requests = [ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    replies.hand_over_heartbeat()
    replies.close(connection_lost)
    assert replies.route(message) is UNKNOWN
    assert counted(replies) == {}
    assert [len(received(request)) for request in requests] == [1, 1]


def test_a_broken_message_after_closing_is_unattributed() -> None:
    replies = table()
    request = ask(replies, TASK, "s1")
    replies.close(connection_lost)
    assert replies.route_invalid(broken(session_id="s1")) is UNATTRIBUTED
    assert len(received(request)) == 1


def test_a_heartbeat_takes_no_place_after_closing() -> None:
    replies = PendingReplies("device_001")
    replies.close(lambda: ValueError("the end"))
    replies.hand_over_heartbeat()
    assert replies.statistics().unanswered == 0
