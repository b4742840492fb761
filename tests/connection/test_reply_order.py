"""An error belongs to the oldest message without a first reply."""

from __future__ import annotations

from tests.connection.support.replies import (
    DELIVERED,
    DEVICE_INFO,
    DUPLICATE,
    HEARTBEAT_REFUSED,
    LATE,
    TASK,
    UNATTRIBUTED,
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


def test_an_error_goes_to_the_oldest_request_without_a_first_reply() -> None:
    replies = table()
    first, second, third = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1"), ask(replies, TASK, "s2")
    assert [replies.route(refusal(f"error {number}")) for number in range(4)] == [DELIVERED] * 3 + [UNATTRIBUTED]
    assert [rejection(request) for request in (first, second, third)] == ["error 0", "error 1", "error 2"]
    assert counted(replies) == {"unattributed_errors": 1}


def test_an_error_skips_an_acknowledged_task() -> None:
    replies = table()
    accepted, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(acknowledgement("s1"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(accepted)) == 1
    assert counted(replies) == {"pending": 1}


def test_an_error_skips_an_answered_request() -> None:
    replies = table()
    answered, refused = ask(replies, DEVICE_INFO, "q1"), ask(replies, DEVICE_INFO, "q2")
    replies.route(information("q1"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(answered)) == 1


def test_an_error_skips_requests_older_than_an_answered_one() -> None:
    replies = table()
    overtaken, answered, refused = (ask(replies, DEVICE_INFO, key) for key in "abc")
    replies.route(information("b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    answer = information("a")
    assert replies.route(answer) is DELIVERED
    assert received(overtaken) == [answer]
    assert len(received(answered)) == 1


def test_heartbeats_take_places_between_requests() -> None:
    replies = table()
    replies.hand_over_heartbeat()
    first = ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    second = ask(replies, TASK, "s2")
    assert counted(replies) == {"pending": 2, "unanswered": 4}
    assert replies.route(refusal("for the heartbeat")) is HEARTBEAT_REFUSED
    assert replies.route(refusal("for the first")) is DELIVERED
    assert replies.route(heartbeat()) is DELIVERED
    assert replies.route(refusal("for the second")) is DELIVERED
    assert (rejection(first), rejection(second)) == ("for the first", "for the second")
    assert counted(replies) == {}


def test_the_acknowledgement_of_a_heartbeat_ends_the_places_before_it() -> None:
    replies = table()
    overtaken = ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    replies.hand_over_heartbeat()
    assert replies.route(heartbeat()) is DELIVERED
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert replies.route(refusal()) is HEARTBEAT_REFUSED
    assert received(overtaken) == []


def test_the_acknowledgement_of_a_task_ends_the_places_of_earlier_heartbeats() -> None:
    replies = table()
    replies.hand_over_heartbeat()
    ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    replies.route(acknowledgement("s1"))
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert [replies.route(heartbeat()) for _ in range(2)] == [DELIVERED, UNKNOWN]


def test_an_error_for_an_abandoned_request_does_not_reject_the_next_one() -> None:
    replies = table()
    abandoned, next_one = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.abandon(abandoned)
    assert counted(replies) == {"pending": 1, "unanswered": 2}
    assert replies.route(refusal("for the abandoned")) is LATE
    assert received(next_one) == []
    assert replies.route(refusal("for the next one")) is DELIVERED
    assert rejection(next_one) == "for the next one"
    assert counted(replies) == {"late_replies": 1}


def test_an_error_skips_a_task_that_ended_before_its_acknowledgement() -> None:
    replies = table()
    ended, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(end("s1"))
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(ended)) == 1


def test_an_ended_task_without_acknowledgement_keeps_its_place_until_it_is_the_oldest() -> None:
    replies = table()
    first, ended, last = ask(replies, TASK, "s1"), ask(replies, TASK, "s2"), ask(replies, TASK, "s3")
    replies.route(end("s2"))
    assert counted(replies) == {"pending": 2, "unanswered": 3}
    assert [replies.route(refusal("for the first")), replies.route(refusal("for the last"))] == [DELIVERED] * 2
    assert (rejection(first), rejection(last)) == ("for the first", "for the last")
    assert len(received(ended)) == 1


def test_an_error_skips_an_abandoned_task_that_ended() -> None:
    replies = table()
    abandoned, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.abandon(abandoned)
    assert replies.route(end("s1")) is LATE
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"


def test_an_error_without_an_unanswered_message_is_unattributed() -> None:
    replies = table()
    assert replies.route(refusal()) is UNATTRIBUTED
    ask(replies, TASK, "s1")
    replies.route(acknowledgement("s1"))
    assert replies.route(refusal()) is UNATTRIBUTED
    assert counted(replies) == {"pending": 1, "unattributed_errors": 2}


def test_the_replies_to_a_request_that_a_misattributed_error_refused_are_late() -> None:
    replies = table()
    mistaken = ask(replies, TASK, "s1")
    replies.route(refusal())
    assert [replies.route(acknowledgement("s1")), replies.route(end("s1")), replies.route(end("s1"))] == [
        LATE,
        LATE,
        DUPLICATE,
    ]
    assert rejection(mistaken) == "no"
    assert counted(replies) == {"late_replies": 2, "duplicate_replies": 1}
