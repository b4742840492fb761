"""Who gets which message of the server: the table of pending requests and the order of first replies, without socket and clock."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio._codec.codec import decode_client_message, decode_server_message
from galaxy_trio._connection.pending_replies import HISTORY, MAX_PENDING, PendingReplies
from galaxy_trio._connection.request_types import PendingStatistics, RequestKind, Routing
from galaxy_trio.errors import ConnectionLost, InvalidMessage, QueueFull, RegistrationRejected, RequestRejected
from galaxy_trio.messages import JSON, ClientMessageType, ServerMessage, ServerMessageType, TaskStatus
from tests.connection.support.recordings import NAMES, text_frames

if TYPE_CHECKING:
    from galaxy_trio._connection.request_types import Reply, Request

REGISTRATION, HEARTBEAT = RequestKind.REGISTRATION, RequestKind.HEARTBEAT
DEVICE_INFO, TASK = RequestKind.DEVICE_INFO, RequestKind.TASK
DELIVERED, LATE, DUPLICATE, UNKNOWN = Routing.DELIVERED, Routing.LATE, Routing.DUPLICATE, Routing.UNKNOWN
UNATTRIBUTED, HEARTBEAT_REFUSED = Routing.UNATTRIBUTED, Routing.HEARTBEAT_REFUSED

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

_response_numbers = itertools.count()


def fresh_id() -> str:
    """A response_id that names nothing, as the server gives to most messages."""
    return f"fresh-{next(_response_numbers)}"


def acknowledgement(key: str) -> ServerMessage:
    return ServerMessage(ServerMessageType.HEARTBEAT, TaskStatus.OK, session_id=key, response_id=fresh_id())


def end(key: str | None, result: JSON = None, status: TaskStatus = TaskStatus.COMPLETED) -> ServerMessage:
    return ServerMessage(ServerMessageType.TASK_END, status, session_id=key, response_id=fresh_id(), result=result)


def information(
    key: str | None, result: JSON = None, status: TaskStatus = TaskStatus.OK, error: str | None = None
) -> ServerMessage:
    return ServerMessage(
        ServerMessageType.DEVICE_INFO_RESPONSE,
        status,
        response_id=key,
        result=result or {"device_id": "d"},
        error=error,
    )


def heartbeat(status: TaskStatus = TaskStatus.OK, error: str | None = None) -> ServerMessage:
    """The acknowledgement of a heartbeat, and the confirmation of a registration."""
    return ServerMessage(ServerMessageType.HEARTBEAT, status, response_id=fresh_id(), error=error)


def refusal(words: str | None = "no") -> ServerMessage:
    return ServerMessage(ServerMessageType.ERROR, TaskStatus.ERROR, response_id=fresh_id(), error=words)


def broken(type: str | None = None, *, response_id: str | None = None, session_id: str | None = None) -> InvalidMessage:
    return InvalidMessage("status: expected this, got that", type=type, response_id=response_id, session_id=session_id)


def table(max_pending: int = MAX_PENDING) -> PendingReplies:
    return PendingReplies("device_001", max_pending=max_pending)


def ask(replies: PendingReplies, kind: RequestKind, key: str = "") -> Request:
    """Register a request and hand it over."""
    request = replies.register(kind, key)
    replies.hand_over(request)
    return request


def received(request: Request) -> list[Reply]:
    """What a request got since this was last asked."""
    channel = request._channel  # pyright: ignore[reportPrivateUsage]
    assert channel is not None
    replies: list[Reply] = []
    while channel[1].statistics().current_buffer_used:
        replies.append(channel[1].receive_nowait())
    return replies


def rejection(request: Request) -> str:
    """What the server said when it refused a request; this was all that the request got."""
    (reply,) = received(request)
    assert isinstance(reply, RequestRejected | RegistrationRejected)
    return reply.words


def counted(replies: PendingReplies) -> dict[str, int]:
    """The statistics that are not zero."""
    return {name: value for name, value in attrs.asdict(replies.statistics()).items() if value}


# ---- each kind of request


def test_a_registration_is_confirmed_by_a_heartbeat_that_names_nothing() -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    confirmation = heartbeat()
    assert replies.route(confirmation) is DELIVERED
    assert received(request) == [confirmation]
    assert counted(replies) == {}


def test_a_registration_is_refused_by_an_error_in_the_servers_words() -> None:
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


@pytest.mark.parametrize(("error", "words"), [("go away", "go away"), (None, "status failed"), ("", "status failed")])
def test_a_registration_is_refused_by_a_heartbeat_with_another_status_than_ok(error: str | None, words: str) -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    assert replies.route(heartbeat(TaskStatus.FAILED, error)) is DELIVERED
    assert rejection(request) == words
    assert counted(replies) == {}


def test_a_confirmation_after_the_registration_was_given_up_is_late_and_the_next_is_unknown() -> None:
    replies = table()
    replies.abandon(ask(replies, REGISTRATION))
    assert replies.route(heartbeat()) is LATE
    assert replies.route(heartbeat()) is UNKNOWN
    assert counted(replies) == {"late_replies": 1, "unknown_replies": 1}


def test_a_task_gets_its_acknowledgement_and_then_its_end() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    accepted, ended = acknowledgement("s1"), end("s1", "done")
    assert replies.route(accepted) is DELIVERED
    assert counted(replies) == {"pending": 1}
    assert replies.route(ended) is DELIVERED
    assert counted(replies) == {}
    assert received(task) == [accepted, ended]


def test_a_task_that_ends_before_its_acknowledgement_gets_its_end_only() -> None:
    replies = table()
    task, ended = ask(replies, TASK, "s1"), end("s1")
    assert replies.route(ended) is DELIVERED
    assert counted(replies) == {}
    assert replies.route(acknowledgement("s1")) is DELIVERED
    assert received(task) == [ended]
    assert counted(replies) == {}


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.ERROR, TaskStatus.COMPLETED])
def test_a_task_gets_its_end_as_it_is_whether_it_ended_well_or_not(status: TaskStatus) -> None:
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


def test_device_information_comes_to_whom_it_names_in_any_order() -> None:
    replies = table()
    requests = {key: ask(replies, DEVICE_INFO, key) for key in "abc"}
    answers = {key: information(key, {"device_id": key}) for key in "cab"}
    assert [replies.route(message) for message in answers.values()] == [DELIVERED] * 3
    assert all(received(requests[key]) == [answers[key]] for key in "abc")
    assert counted(replies) == {}


def test_a_result_that_is_an_error_rejects_the_request() -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    assert replies.route(information("q1", {"error": "Device not found"})) is DELIVERED
    (reply,) = received(request)
    assert type(reply) is RequestRejected
    assert reply.words == "Device not found"
    assert str(reply) == "the server refused the device information request for device 'device_001': Device not found"


def test_a_result_with_an_error_beside_a_device_is_information() -> None:
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
def test_device_information_with_the_status_of_a_failure_rejects_the_request(
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


# ---- errors, which name nothing


def test_an_error_goes_to_the_oldest_request_without_a_first_reply() -> None:
    replies = table()
    first, second, third = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1"), ask(replies, TASK, "s2")
    assert [replies.route(refusal(f"error {number}")) for number in range(4)] == [DELIVERED] * 3 + [UNATTRIBUTED]
    assert [rejection(request) for request in (first, second, third)] == ["error 0", "error 1", "error 2"]
    assert counted(replies) == {"unattributed_errors": 1}


def test_an_error_passes_over_a_task_that_was_acknowledged() -> None:
    replies = table()
    accepted, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(acknowledgement("s1"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(accepted)) == 1
    assert counted(replies) == {"pending": 1}


def test_an_error_passes_over_a_request_that_was_answered() -> None:
    replies = table()
    answered, refused = ask(replies, DEVICE_INFO, "q1"), ask(replies, DEVICE_INFO, "q2")
    replies.route(information("q1"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(answered)) == 1


def test_an_error_after_a_later_messages_reply_is_not_an_earlier_ones() -> None:
    replies = table()
    overtaken, answered, refused = (ask(replies, DEVICE_INFO, key) for key in "abc")
    replies.route(information("b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    answer = information("a")
    assert replies.route(answer) is DELIVERED
    assert received(overtaken) == [answer]
    assert len(received(answered)) == 1


def test_heartbeats_have_their_place_between_requests() -> None:
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


def test_the_acknowledgement_of_a_heartbeat_shows_that_no_earlier_reply_will_come() -> None:
    replies = table()
    overtaken = ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    replies.hand_over_heartbeat()
    assert replies.route(heartbeat()) is DELIVERED
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert replies.route(refusal()) is HEARTBEAT_REFUSED
    assert received(overtaken) == []


def test_the_acknowledgement_of_a_task_passes_the_heartbeats_before_it() -> None:
    replies = table()
    replies.hand_over_heartbeat()
    ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    replies.route(acknowledgement("s1"))
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert [replies.route(heartbeat()) for _ in range(2)] == [DELIVERED, UNKNOWN]


def test_an_error_for_an_abandoned_request_does_not_hit_the_next_one() -> None:
    replies = table()
    abandoned, next_one = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.abandon(abandoned)
    assert counted(replies) == {"pending": 1, "unanswered": 2}
    assert replies.route(refusal("for the abandoned")) is LATE
    assert received(next_one) == []
    assert replies.route(refusal("for the next one")) is DELIVERED
    assert rejection(next_one) == "for the next one"
    assert counted(replies) == {"late_replies": 1}


def test_an_error_is_never_that_of_a_task_that_ended_before_its_acknowledgement() -> None:
    replies = table()
    ended, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(end("s1"))
    assert counted(replies) == {"pending": 1, "unanswered": 1}
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(ended)) == 1


def test_a_task_that_ended_before_its_acknowledgement_keeps_its_place_behind_others_until_it_is_the_oldest() -> None:
    replies = table()
    first, ended, last = ask(replies, TASK, "s1"), ask(replies, TASK, "s2"), ask(replies, TASK, "s3")
    replies.route(end("s2"))
    assert counted(replies) == {"pending": 2, "unanswered": 3}
    assert [replies.route(refusal("for the first")), replies.route(refusal("for the last"))] == [DELIVERED] * 2
    assert (rejection(first), rejection(last)) == ("for the first", "for the last")
    assert len(received(ended)) == 1


def test_the_late_end_of_an_abandoned_task_shows_that_no_error_is_its_own() -> None:
    replies = table()
    abandoned, refused = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.abandon(abandoned)
    assert replies.route(end("s1")) is LATE
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"


def test_an_error_that_nobody_can_have_caused_is_unattributed() -> None:
    replies = table()
    assert replies.route(refusal()) is UNATTRIBUTED
    ask(replies, TASK, "s1")
    replies.route(acknowledgement("s1"))
    assert replies.route(refusal()) is UNATTRIBUTED
    assert counted(replies) == {"pending": 1, "unattributed_errors": 2}


def test_a_request_that_was_refused_by_mistake_gets_nothing_more_and_its_own_replies_are_late() -> None:
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


# ---- late, duplicate and unknown replies


def test_the_replies_to_an_abandoned_task_are_late_once_and_then_duplicates() -> None:
    replies = table()
    replies.abandon(ask(replies, TASK, "s1"))
    assert counted(replies) == {"unanswered": 1}
    assert [replies.route(acknowledgement("s1")) for _ in range(2)] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 1, "duplicate_replies": 1}
    assert [replies.route(end("s1")) for _ in range(2)] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 2, "duplicate_replies": 2}


def test_the_reply_to_an_abandoned_request_for_information_is_late_once_and_then_a_duplicate() -> None:
    replies = table()
    replies.abandon(ask(replies, DEVICE_INFO, "q1"))
    assert [replies.route(information("q1")), replies.route(information("q1", {"error": "no"}))] == [LATE, DUPLICATE]
    assert counted(replies) == {"late_replies": 1, "duplicate_replies": 1}


def test_a_task_abandoned_after_its_acknowledgement_has_a_late_end() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    replies.route(acknowledgement("s1"))
    replies.abandon(task)
    assert [replies.route(end("s1")), replies.route(acknowledgement("s1"))] == [LATE, DUPLICATE]


def test_what_a_request_had_already_is_a_duplicate_and_is_not_given_to_it_again() -> None:
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


def test_a_duplicate_acknowledgement_while_the_task_runs_is_not_given_to_it() -> None:
    replies = table()
    task, accepted, ended = ask(replies, TASK, "s1"), acknowledgement("s1"), end("s1")
    assert [replies.route(message) for message in (accepted, accepted, ended)] == [DELIVERED, DUPLICATE, DELIVERED]
    assert received(task) == [accepted, ended]


@pytest.mark.parametrize(
    "message",
    [
        acknowledgement("nobody"),
        acknowledgement(""),
        end("nobody"),
        end(None),
        end(""),
        information("nobody"),
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
def test_what_answers_nothing_that_was_asked_is_unknown_and_changes_nothing(message: ServerMessage) -> None:
    replies = table()
    ask(replies, REGISTRATION)
    replies.route(heartbeat())
    task, request = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")
    assert replies.route(message) is UNKNOWN
    assert counted(replies) == {"pending": 2, "unanswered": 2, "unknown_replies": 1}
    assert received(task) == received(request) == []


def test_nothing_answers_a_request_that_was_registered_and_not_handed_over() -> None:
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


# ---- broken replies


@pytest.mark.parametrize(
    ("kind", "invalid"),
    [
        (DEVICE_INFO, broken("device_info_response", response_id="k")),
        (DEVICE_INFO, broken(response_id="k")),
        (TASK, broken("task_end", session_id="k")),
        (TASK, broken("heartbeat", session_id="k")),
        (TASK, broken(session_id="k")),
        (TASK, broken("task_end", session_id="k", response_id="fresh")),
        (DEVICE_INFO, broken("device_info_response", session_id="nobody", response_id="k")),
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


def test_a_broken_reply_that_names_two_requests_ends_the_one_that_asked_for_information() -> None:
    replies = table()
    request, task = ask(replies, DEVICE_INFO, "q1"), ask(replies, TASK, "s1")
    assert replies.route_invalid(broken(response_id="q1", session_id="s1")) is DELIVERED
    assert (len(received(request)), len(received(task))) == (1, 0)


def test_a_broken_reply_is_raised_without_the_frames_that_hold_the_whole_message() -> None:
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
        broken(response_id="nobody", session_id="nobody"),
        broken(response_id="", session_id=""),
        broken("device_info_response", response_id="s1"),
        broken("task_end", session_id="q1"),
        broken("heartbeat", session_id="registration", response_id="registration"),
    ],
)
def test_a_broken_message_that_names_nothing_that_was_asked_is_unattributed(invalid: InvalidMessage) -> None:
    replies = table()
    task, request = ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")
    ask(replies, REGISTRATION)
    assert replies.route_invalid(invalid) is UNATTRIBUTED
    assert received(task) == received(request) == []
    assert counted(replies) == {"pending": 3, "unanswered": 3, "invalid_messages": 1}


def test_whatever_is_broken_is_the_answer_to_the_registration_while_that_is_the_oldest() -> None:
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


def test_after_a_broken_reply_the_request_gets_nothing_more() -> None:
    replies = table()
    task = ask(replies, TASK, "s1")
    replies.route_invalid(broken("heartbeat", session_id="s1"))
    assert replies.route(end("s1")) is DUPLICATE
    assert replies.route_invalid(broken("task_end", session_id="s1")) is UNATTRIBUTED
    assert len(received(task)) == 1


def test_a_broken_first_reply_takes_its_place_in_the_order() -> None:
    replies = table()
    overtaken, task, refused = (ask(replies, TASK, key) for key in "abc")
    replies.route_invalid(broken("heartbeat", session_id="b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert (received(overtaken), len(received(task))) == ([], 1)


def test_a_broken_late_reply_takes_its_place_in_the_order() -> None:
    replies = table()
    abandoned, refused = ask(replies, DEVICE_INFO, "a"), ask(replies, TASK, "b")
    replies.abandon(abandoned)
    assert replies.route_invalid(broken("device_info_response", response_id="a")) is UNATTRIBUTED
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"


def test_the_broken_end_of_a_task_leaves_older_messages_in_their_places() -> None:
    replies = table()
    refused, task = ask(replies, TASK, "a"), ask(replies, TASK, "b")
    replies.route_invalid(broken("task_end", session_id="b"))
    assert replies.route(refusal()) is DELIVERED
    assert rejection(refused) == "no"
    assert len(received(task)) == 1
    assert counted(replies) == {"invalid_messages": 1}


# ---- names


@pytest.mark.parametrize("kind", [DEVICE_INFO, TASK])
def test_a_key_can_be_used_once_whatever_became_of_it(kind: RequestKind) -> None:
    replies = table()
    replies.register(TASK, "waiting")
    replies.abandon(replies.register(DEVICE_INFO, "never sent"))
    ask(replies, TASK, "ended")
    replies.route(end("ended"))
    replies.abandon(ask(replies, TASK, "abandoned"))
    before = replies.statistics()
    for key in ("waiting", "never sent", "ended", "abandoned"):
        with pytest.raises(ValueError, match=f"^a {kind.value} named '{key}' was sent before on this connection"):
            replies.register(kind, key)
    assert replies.statistics() == before


def test_a_connection_registers_once() -> None:
    replies = table()
    request = ask(replies, REGISTRATION)
    with pytest.raises(ValueError, match="a registration named 'registration' was sent before"):
        replies.register(REGISTRATION)
    replies.route(heartbeat())
    replies.abandon(request)
    with pytest.raises(ValueError, match="a registration named 'registration' was sent before"):
        replies.register(REGISTRATION)


# ---- limits


def test_above_max_pending_a_request_is_refused_before_anything_happens() -> None:
    replies = table(max_pending=2)
    first, second = ask(replies, TASK, "s1"), replies.register(TASK, "s2")
    replies.abandon(first)
    replies.check()
    third = ask(replies, DEVICE_INFO, "q1")
    before = replies.statistics()
    for attempt in (replies.check, lambda: replies.register(TASK, "s3")):
        with pytest.raises(QueueFull, match="2 requests are already pending on the connection for device 'device_001'"):
            attempt()
    assert replies.statistics() == before
    assert received(second) == received(third) == []
    replies.route(information("q1"))
    replies.check()
    assert replies.register(TASK, "s3").waiting


def test_ten_thousand_requests_may_wait_unless_told_otherwise() -> None:
    replies = PendingReplies("device_001")
    for number in range(MAX_PENDING):
        replies.register(TASK, str(number))
    assert MAX_PENDING == 10_000
    with pytest.raises(QueueFull):
        replies.check()


def test_above_the_limit_of_the_order_the_oldest_place_is_given_up_and_counted() -> None:
    replies = table(max_pending=2)
    forgotten = ask(replies, TASK, "s1")
    replies.hand_over_heartbeat()
    assert counted(replies) == {"pending": 1, "unanswered": 2}
    replies.hand_over_heartbeat()
    assert counted(replies) == {"pending": 1, "unanswered": 2, "forgotten": 1}
    assert replies.route(refusal()) is HEARTBEAT_REFUSED
    accepted, ended = acknowledgement("s1"), end("s1")
    assert [replies.route(accepted), replies.route(ended)] == [DELIVERED] * 2
    assert received(forgotten) == [accepted, ended]
    assert counted(replies) == {"unanswered": 1, "forgotten": 1}


def test_a_heartbeat_whose_place_was_given_up_is_not_the_one_that_is_acknowledged() -> None:
    replies = table(max_pending=2)
    for _ in range(5):
        replies.hand_over_heartbeat()
    assert counted(replies) == {"unanswered": 2, "forgotten": 3}
    assert [replies.route(heartbeat()) for _ in range(3)] == [DELIVERED, DELIVERED, UNKNOWN]


def test_heartbeats_that_other_replies_have_passed_are_kept_nowhere() -> None:
    replies = table(max_pending=3)
    for number in range(100):
        replies.hand_over_heartbeat()
        request = ask(replies, DEVICE_INFO, f"q{number}")
        replies.route(information(request.key))
    assert len(replies._nameless) <= 2  # pyright: ignore[reportPrivateUsage]
    assert counted(replies) == {}


def test_so_many_ended_requests_are_remembered_and_no_more() -> None:
    replies = table()
    for number in range(HISTORY + 1):
        ask(replies, DEVICE_INFO, str(number))
        replies.route(information(str(number)))
    assert len(replies._ended) == HISTORY  # pyright: ignore[reportPrivateUsage]
    assert [replies.route(information("0")), replies.route(information("1"))] == [UNKNOWN, DUPLICATE]
    assert replies.register(DEVICE_INFO, "0").waiting


def route_large_replies(replies: PendingReplies) -> list[weakref.ref[ServerMessage]]:
    """Answer a task "s1" and a request "q1". Whether the answers are still held anywhere, the references tell."""
    messages = [acknowledgement("s1"), end("s1", ["large"]), information("q1", {"device_id": "large"})]
    for message in messages:
        replies.route(message)
    return [weakref.ref(message) for message in messages]


def held(references: list[weakref.ref[ServerMessage]]) -> list[bool]:
    gc.collect()
    return [reference() is not None for reference in references]


def test_a_request_lets_go_of_what_it_got_when_it_is_abandoned() -> None:
    replies = table()
    requests = [ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    references = route_large_replies(replies)
    assert held(references) == [True, True, True]
    for request in requests:
        replies.abandon(request)
    assert held(references) == [False, False, False]


def test_a_late_reply_is_held_by_nothing() -> None:
    replies = table()
    replies.abandon(ask(replies, TASK, "s1"))
    replies.abandon(ask(replies, DEVICE_INFO, "q1"))
    assert held(route_large_replies(replies)) == [False, False, False]
    assert counted(replies) == {"late_replies": 3}


# ---- the end of the connection


def lost() -> ConnectionLost:
    return ConnectionLost("the connection is gone")


def test_closing_ends_every_request_with_an_error_of_its_own() -> None:
    replies = table()
    requests = [ask(replies, REGISTRATION), ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    never_sent = replies.register(TASK, "s2")
    replies.hand_over_heartbeat()
    replies.close(lost)
    errors = [reply for request in [*requests, never_sent] for reply in received(request)]
    assert [type(error) for error in errors] == [ConnectionLost] * 4
    assert len({id(error) for error in errors}) == 4
    assert counted(replies) == {}


def test_closing_comes_after_an_acknowledgement_that_nobody_has_read_yet() -> None:
    replies = table()
    task, accepted = ask(replies, TASK, "s1"), acknowledgement("s1")
    replies.route(accepted)
    replies.close(lost)
    first, second = received(task)
    assert first is accepted
    assert type(second) is ConnectionLost


def test_closing_tells_nothing_to_who_has_ended_or_gone() -> None:
    replies = table()
    ended, abandoned = ask(replies, TASK, "s1"), ask(replies, TASK, "s2")
    replies.route(end("s1"))
    replies.abandon(abandoned)
    replies.close(lost)
    assert [type(reply) for reply in received(ended)] == [ServerMessage]
    replies.abandon(ended)
    replies.abandon(abandoned)
    assert counted(replies) == {}


def test_a_second_close_changes_nothing() -> None:
    replies = table()
    request = ask(replies, TASK, "s1")
    replies.close(lost)
    replies.close(lambda: ZeroDivisionError("another reason"))
    assert [type(reply) for reply in received(request)] == [ConnectionLost]
    with pytest.raises(ConnectionLost):
        replies.check()


def test_after_the_close_registering_raises_an_error_of_its_own_each_time() -> None:
    replies = table(max_pending=1)
    ask(replies, TASK, "s1")
    replies.close(lost)
    caught: list[ConnectionLost] = []
    for attempt in (replies.check, lambda: replies.register(TASK, "s1"), lambda: replies.register(DEVICE_INFO, "q1")):
        with pytest.raises(ConnectionLost) as info:
            attempt()
        caught.append(info.value)
    assert len({id(error) for error in caught}) == 3
    assert counted(replies) == {}


@pytest.mark.parametrize("message", [acknowledgement("s1"), end("s1"), information("q1"), heartbeat(), refusal()])
def test_what_comes_after_the_close_is_nobodys_and_is_not_counted(message: ServerMessage) -> None:
    replies = table()
    requests = [ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    replies.hand_over_heartbeat()
    replies.close(lost)
    assert replies.route(message) is UNKNOWN
    assert counted(replies) == {}
    assert [len(received(request)) for request in requests] == [1, 1]


def test_what_comes_broken_after_the_close_is_nobodys() -> None:
    replies = table()
    request = ask(replies, TASK, "s1")
    replies.close(lost)
    assert replies.route_invalid(broken(session_id="s1")) is UNATTRIBUTED
    assert len(received(request)) == 1


def test_a_new_table_has_seen_nothing() -> None:
    assert table().statistics() == NOTHING


# ---- waiting for a reply


async def test_replies_are_received_in_the_order_in_which_they_came() -> None:
    replies = table()
    task, accepted, ended = ask(replies, TASK, "s1"), acknowledgement("s1"), end("s1")
    replies.route(accepted)
    replies.route(ended)
    with trio.fail_after(60):
        assert [await task.receive(), await task.receive()] == [accepted, ended]


async def test_a_reply_wakes_who_waits_for_it() -> None:
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


async def test_waiting_for_an_abandoned_request_raises_at_once() -> None:
    replies = table()
    request = ask(replies, DEVICE_INFO, "q1")
    replies.route(information("q1"))
    replies.abandon(request)
    with trio.fail_after(60), pytest.raises(trio.ClosedResourceError, match="this request was abandoned"):
        await request.receive()


# ---- the recordings


class Conversations:
    """The connections of one side of a recording: what it asked is asked again, and each message goes to the connection that it came on."""

    def __init__(self) -> None:
        self._connections: dict[str | None, PendingReplies] = {}
        self._sessions: dict[str, PendingReplies] = {}
        self._latest = table()
        self.routings: list[str] = []

    def sent(self, text: str) -> None:
        try:
            message = decode_client_message(text)
        except InvalidMessage:
            return
        self._latest = self._connections.setdefault(message.client_id, table())
        match message.type:
            case ClientMessageType.REGISTER:
                self._ask(REGISTRATION, "")
            case ClientMessageType.DEVICE_INFO_REQUEST:
                self._ask(DEVICE_INFO, cast("str", message.request_id))
            case ClientMessageType.TASK:
                self._ask(TASK, cast("str", message.session_id))
                self._sessions.setdefault(cast("str", message.session_id), self._latest)
            case ClientMessageType.HEARTBEAT:
                self._latest.hand_over_heartbeat()
            case _:
                pass  # what a device sends beside these is no question

    def _ask(self, kind: RequestKind, key: str) -> None:
        try:
            ask(self._latest, kind, key)
        except ValueError:
            self.routings.append("refused here")

    def came(self, text: str) -> None:
        message = decode_server_message(text)
        connection = self._sessions.get(message.session_id or "", self._latest)
        self.routings.append(connection.route(message).value)


ROUTINGS: dict[tuple[str, str], list[str]] = {
    # What the constellation sends here is broken: our codec makes no such thing, so nothing was asked. The last is a heartbeat.
    ("bad_messages", "constellation"): ["unattributed"] * 3 + ["heartbeat refused"],
    ("device_info_ok", "constellation"): ["delivered"],
    ("device_info_out_of_scope", "constellation"): ["delivered"],
    ("device_info_without_scope", "constellation"): ["delivered", "delivered"],
    ("device_lost_mid_task", "constellation"): ["delivered", "delivered"],
    ("heartbeat", "constellation"): ["delivered", "heartbeat refused"],
    ("other_messages", "constellation"): ["delivered"],
    ("other_messages", "device"): ["delivered", "refused here"] + ["unattributed"] * 3,
    ("registration_errors", "constellation"): ["delivered", "delivered"],
    ("registration_ok", "constellation"): ["delivered"],
    ("registration_ok", "device"): ["delivered"],
    ("same_session_twice", "constellation"): [
        *("delivered", "delivered"),
        *("refused here", "duplicate", "delivered", "duplicate"),
        *("delivered", "delivered", "delivered", "delivered"),
    ],
    ("same_session_twice", "device"): ["delivered"],
    ("task_completed", "constellation"): ["delivered", "delivered"],
    ("task_completed", "device"): ["unknown"],
    ("task_ended_in_error", "constellation"): ["delivered", "delivered"],
    ("task_ended_in_error", "device"): ["unknown"],
    ("task_errors", "constellation"): ["delivered"] * 3,
    ("task_failed", "constellation"): ["delivered", "delivered"],
    ("task_failed", "device"): ["unknown"],
    ("task_to_lost_device", "constellation"): ["delivered"],
    ("task_with_commands", "constellation"): ["delivered", "delivered"],
    ("task_with_commands", "device"): ["unknown", "unknown"],
    ("two_tasks_interleaved", "constellation"): ["delivered"] * 4,
    ("two_tasks_interleaved", "device"): ["unknown", "unknown"],
}


def test_every_recorded_message_of_the_server_goes_to_whom_it_belongs() -> None:
    routings: dict[tuple[str, str], list[str]] = {}
    for name in NAMES:
        for side in ("constellation", "device"):
            conversations = Conversations()
            for frame in text_frames(name):
                if frame.sender == side:
                    conversations.sent(frame.text)
                elif frame.receiver == side:
                    conversations.came(frame.text)
            if conversations.routings:
                routings[name, side] = conversations.routings
    assert routings == ROUTINGS


def test_nobody_can_wait_for_the_reply_to_a_heartbeat() -> None:
    with pytest.raises(ValueError, match="a heartbeat has no caller"):
        PendingReplies("device_001").register(RequestKind.HEARTBEAT)


def test_a_heartbeat_takes_no_place_after_the_end() -> None:
    replies = PendingReplies("device_001")
    replies.close(lambda: ValueError("the end"))
    replies.hand_over_heartbeat()
    assert replies.statistics().unanswered == 0
