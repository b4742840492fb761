"""The table of pending requests is bounded, and keeps nothing of ended requests but their names."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from galaxy_trio._connection.pending_replies import HISTORY, MAX_PENDING, PendingReplies
from galaxy_trio.errors import QueueFull
from tests.connection.support.replies import (
    DELIVERED,
    DEVICE_INFO,
    DUPLICATE,
    HEARTBEAT_REFUSED,
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
    table,
)

if TYPE_CHECKING:
    from galaxy_trio._connection.request_types import RequestKind
    from galaxy_trio.messages import ServerMessage


@pytest.mark.parametrize("kind", [DEVICE_INFO, TASK])
def test_each_key_can_be_used_once(kind: RequestKind) -> None:
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


def test_a_request_above_max_pending_is_refused_without_side_effects() -> None:
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


def test_the_default_limit_is_10000_pending_requests() -> None:
    replies = PendingReplies("device_001")
    for number in range(MAX_PENDING):
        replies.register(TASK, str(number))
    assert MAX_PENDING == 10_000
    with pytest.raises(QueueFull):
        replies.check()


def test_above_its_limit_the_order_forgets_the_oldest_place_and_counts_it() -> None:
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


def test_an_acknowledgement_skips_heartbeats_whose_places_were_forgotten() -> None:
    replies = table(max_pending=2)
    for _ in range(5):
        replies.hand_over_heartbeat()
    assert counted(replies) == {"unanswered": 2, "forgotten": 3}
    assert [replies.route(heartbeat()) for _ in range(3)] == [DELIVERED, DELIVERED, UNKNOWN]


def test_overtaken_heartbeats_are_removed() -> None:
    replies = table(max_pending=3)
    for number in range(100):
        replies.hand_over_heartbeat()
        request = ask(replies, DEVICE_INFO, f"q{number}")
        replies.route(information(request.key))
    assert len(replies._nameless) <= 2  # pyright: ignore[reportPrivateUsage]
    assert counted(replies) == {}


def test_the_history_of_ended_requests_is_bounded() -> None:
    replies = table()
    for number in range(HISTORY + 1):
        ask(replies, DEVICE_INFO, str(number))
        replies.route(information(str(number)))
    assert len(replies._ended) == HISTORY  # pyright: ignore[reportPrivateUsage]
    assert [replies.route(information("0")), replies.route(information("1"))] == [UNKNOWN, DUPLICATE]
    assert replies.register(DEVICE_INFO, "0").waiting


def route_large_replies(replies: PendingReplies) -> list[weakref.ref[ServerMessage]]:
    """Answer a task "s1" and a request "q1", and return weak references to the replies."""
    messages = [acknowledgement("s1"), end("s1", ["large"]), information("q1", {"device_id": "large"})]
    for message in messages:
        replies.route(message)
    return [weakref.ref(message) for message in messages]


def alive(references: list[weakref.ref[ServerMessage]]) -> list[bool]:
    gc.collect()
    return [reference() is not None for reference in references]


def test_abandoning_a_request_frees_its_replies() -> None:
    replies = table()
    requests = [ask(replies, TASK, "s1"), ask(replies, DEVICE_INFO, "q1")]
    references = route_large_replies(replies)
    assert alive(references) == [True, True, True]
    for request in requests:
        replies.abandon(request)
    assert alive(references) == [False, False, False]


def test_a_late_reply_is_freed() -> None:
    replies = table()
    replies.abandon(ask(replies, TASK, "s1"))
    replies.abandon(ask(replies, DEVICE_INFO, "q1"))
    assert alive(route_large_replies(replies)) == [False, False, False]
    assert counted(replies) == {"late_replies": 3}
