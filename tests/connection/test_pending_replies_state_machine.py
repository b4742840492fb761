"""Compares `PendingReplies` with a model under any sequence of requests, replies, errors, cancellations and the close.

Invariants 4, 7 and 8 of the design: each request ends exactly once, with its own reply; an error belongs to the oldest message without a
first reply; every table is bounded. The model has no queue: each message has a number, and those above the highest number with a first
reply are unanswered.
"""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.request_types import PendingStatistics, Reply, Request, RequestKind, Routing
from galaxy_trio.errors import ConnectionLost, InvalidMessage, QueueFull, RegistrationRejected, RequestRejected
from galaxy_trio.messages import ServerMessage, ServerMessageType, TaskStatus

MAX_PENDING = 4

REGISTRATION, HEARTBEAT = RequestKind.REGISTRATION, RequestKind.HEARTBEAT
DEVICE_INFO, TASK = RequestKind.DEVICE_INFO, RequestKind.TASK


@attrs.define(eq=False)
class Sent:
    """A message that was handed over, with its number in the order of sending."""

    number: int
    kind: RequestKind
    asked: Asked | None


@attrs.define(eq=False)
class Asked:
    """The model of a request."""

    kind: RequestKind
    key: str
    real: Request
    sent: Sent | None = None
    waiting: bool = True
    acknowledged: bool = False
    ended: bool = False
    """Its last reply has arrived, while it waited or later."""
    abandoned: bool = False
    due: list[Reply | str] = attrs.field(factory=list["Reply | str"])
    """The replies that it must have received: a message, or a part of an error's text."""
    got: list[Reply] = attrs.field(factory=list[Reply])


asked = Bundle[Asked]("asked")


class Requests(RuleBasedStateMachine):
    """Runs the real table and the model in parallel."""

    def __init__(self) -> None:
        super().__init__()
        self.replies = PendingReplies("device_001", max_pending=MAX_PENDING)
        self.all: list[Asked] = []
        self.sent: list[Sent] = []
        self.settled = 0
        """The highest number without an expected first reply."""
        self.closed = False
        self.names = itertools.count(1)
        self.late = self.duplicate = self.unknown = self.broken = self.unattributed = self.forgotten = 0

    def unanswered(self) -> list[Sent]:
        """The messages that may still receive a first reply, oldest first."""
        later = [sent for sent in self.sent if sent.number > self.settled]
        # An ended task was accepted, so an error cannot belong to it.
        return list(itertools.dropwhile(lambda sent: sent.asked is not None and sent.asked.ended, later))

    def settle(self, request: Asked) -> None:
        """Record the first reply to a request."""
        assert request.sent is not None
        self.settled = max(self.settled, request.sent.number)

    def finish(self, request: Asked, reply: Reply | str) -> None:
        """Expect a request's last reply."""
        assert request.waiting
        request.waiting = False
        request.due.append(reply)

    def hand_over_anything(self, kind: RequestKind, request: Asked | None) -> Sent:
        unanswered = self.unanswered()
        if len(unanswered) >= MAX_PENDING:
            self.settled = unanswered[0].number
            self.forgotten += 1
        sent = Sent(len(self.sent) + 1, kind, request)
        self.sent.append(sent)
        return sent

    def answerable(self, request: Asked) -> bool:
        return request.sent is not None and not self.closed

    def expect(self, message: ServerMessage, routing: Routing) -> None:
        """Route a message and check the result."""
        assert self.replies.route(message) is routing
        if not self.closed:
            self.late += routing is Routing.LATE
            self.duplicate += routing is Routing.DUPLICATE
            self.unknown += routing is Routing.UNKNOWN
            self.unattributed += routing is Routing.UNATTRIBUTED

    def fresh(self) -> str:
        """Return an unused name."""
        return f"name-{next(self.names)}"

    def may_register(self) -> bool:
        return not self.closed and sum(request.waiting for request in self.all) < MAX_PENDING

    @precondition(lambda self: self.may_register())
    @rule(
        target=asked,
        kind=st.sampled_from([DEVICE_INFO, TASK, REGISTRATION]),
        sent_immediately=st.sampled_from([True, True, False]),
    )
    def register(self, kind: RequestKind, sent_immediately: bool) -> Asked:
        if any(request.kind is REGISTRATION for request in self.all) and kind is REGISTRATION:
            kind = TASK
        key = "" if kind is REGISTRATION else self.fresh()
        request = Asked(kind, key, self.replies.register(kind, key))
        self.all.append(request)
        if sent_immediately:
            self.hand_over(request)
        return request

    @precondition(lambda self: not self.may_register())
    @rule(kind=st.sampled_from([DEVICE_INFO, TASK]))
    def register_when_full_or_closed(self, kind: RequestKind) -> None:
        before = self.replies.statistics()
        with pytest.raises(ConnectionLost if self.closed else QueueFull):
            self.replies.register(kind, self.fresh())
        assert self.replies.statistics() == before

    @precondition(lambda self: self.may_register())
    @rule(request=asked, kind=st.sampled_from([DEVICE_INFO, TASK]))
    def register_under_a_name_that_was_used(self, request: Asked, kind: RequestKind) -> None:
        with pytest.raises(ValueError, match="was sent before"):
            self.replies.register(kind, request.real.key)

    @rule(request=asked)
    def hand_over(self, request: Asked) -> None:
        if request.sent is None and request.waiting and not self.closed:
            request.sent = self.hand_over_anything(request.kind, request)
            self.replies.hand_over(request.real)

    @precondition(lambda self: not self.closed)
    @rule()
    def hand_over_a_heartbeat(self) -> None:
        self.hand_over_anything(HEARTBEAT, None)
        self.replies.hand_over_heartbeat()

    @rule(request=asked)
    def read(self, request: Asked) -> None:
        if not request.abandoned:
            while (reply := request.real.receive_nowait()) is not None:
                request.got.append(reply)
            assert len(request.got) == len(request.due)
            for reply, due in zip(request.got, request.due, strict=True):
                if isinstance(due, str):
                    assert isinstance(reply, Exception)
                    assert due in str(reply)
                else:
                    assert reply is due

    @rule(request=asked)
    def abandon(self, request: Asked) -> None:
        self.read(request)
        self.replies.abandon(request.real)
        request.waiting, request.abandoned = False, True

    @precondition(lambda self: len(self.sent) > 8)
    @rule()
    def close(self) -> None:
        errors: list[ConnectionLost] = []

        def lost() -> ConnectionLost:
            errors.append(ConnectionLost(f"lost, {len(errors)}."))
            return errors[-1]

        self.replies.close(lost)
        waiting = [request for request in self.all if request.waiting]
        assert len(errors) == (0 if self.closed else len(waiting))
        for request, error in zip(waiting, errors, strict=True):
            self.finish(request, str(error))
        self.closed = True
        self.sent.clear()

    @rule(request=asked, refused=st.booleans())
    def answer_with_information(self, request: Asked, refused: bool) -> None:
        if request.kind is not DEVICE_INFO:
            return
        words = f"words for {request.key}."
        message = ServerMessage(
            ServerMessageType.DEVICE_INFO_RESPONSE,
            TaskStatus.OK,
            response_id=request.key,
            result={"error": words} if refused else {"device_id": request.key},
        )
        if not self.answerable(request):
            self.expect(message, Routing.UNKNOWN)
        elif request.ended:
            self.expect(message, Routing.DUPLICATE)
        else:
            self.settle(request)
            self.last_reply(request, message, words if refused else message)

    @rule(request=asked)
    def acknowledge(self, request: Asked) -> None:
        message = ServerMessage(ServerMessageType.HEARTBEAT, TaskStatus.OK, session_id=request.key or self.fresh())
        if not self.answerable(request) or request.kind is not TASK:
            self.expect(message, Routing.UNKNOWN)
        elif request.acknowledged:
            self.expect(message, Routing.DUPLICATE)
        else:
            self.settle(request)
            request.acknowledged = True
            if request.waiting:
                request.due.append(message)
            # An acknowledgement after the end counts as delivered.
            self.expect(message, Routing.DELIVERED if request.waiting or request.ended else Routing.LATE)

    @rule(request=asked, status=st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED]))
    def end(self, request: Asked, status: TaskStatus) -> None:
        message = ServerMessage(ServerMessageType.TASK_END, status, session_id=request.key, response_id=self.fresh())
        if not self.answerable(request) or request.kind is not TASK:
            self.expect(message, Routing.UNKNOWN)
        elif request.ended:
            self.expect(message, Routing.DUPLICATE)
        else:
            self.last_reply(request, message, message)

    def last_reply(self, request: Asked, message: ServerMessage, due: Reply | str) -> None:
        routing = Routing.DELIVERED if request.waiting else Routing.LATE
        if request.waiting:
            self.finish(request, due)
        request.ended = True
        self.expect(message, routing)

    @rule(request=asked, type=st.sampled_from([None, "first", "last"]))
    def answer_with_a_broken_message(self, request: Asked, type: str | None) -> None:
        if request.kind is REGISTRATION:
            return
        words = f"broken {self.fresh()}."
        if request.kind is TASK:
            kind = {"first": "heartbeat", "last": "task_end"}.get(type or "")
            invalid = InvalidMessage(words, type=kind, session_id=request.key, response_id=self.fresh())
        else:
            invalid = InvalidMessage(words, type=type and "device_info_response", response_id=request.key)
        if self.answerable(request):
            self.expect_broken(invalid, request, words, is_first=request.kind is not TASK or type == "first")
        else:
            self.expect_broken(invalid, self.oldest_if_registration(), words, is_first=True)

    @rule()
    def send_a_broken_message_without_a_name(self) -> None:
        words = f"broken {self.fresh()}."
        invalid = InvalidMessage(words, response_id=self.fresh(), session_id=self.fresh())
        self.expect_broken(invalid, self.oldest_if_registration(), words, is_first=True)

    def oldest_if_registration(self) -> Asked | None:
        """Return the registration if it is unanswered: no other request can receive a reply before it."""
        unanswered = [] if self.closed else self.unanswered()
        return unanswered[0].asked if unanswered and unanswered[0].kind is REGISTRATION else None

    def expect_broken(self, invalid: InvalidMessage, request: Asked | None, words: str, *, is_first: bool) -> None:
        routing = Routing.UNATTRIBUTED
        if request is not None and is_first:
            self.settle(request)
        if request is not None and request.waiting:
            routing = Routing.DELIVERED
            self.finish(request, words)
            request.ended = True
        self.broken += 1
        assert self.replies.route_invalid(invalid) is routing

    @rule(ok=st.booleans())
    def acknowledge_a_heartbeat_or_the_registration(self, ok: bool) -> None:
        words = f"words {self.fresh()}."
        status = TaskStatus.OK if ok else TaskStatus.ERROR
        message = ServerMessage(ServerMessageType.HEARTBEAT, status, response_id=self.fresh(), error=words)
        sent = next((sent for sent in self.unanswered() if sent.kind in (HEARTBEAT, REGISTRATION)), None)
        if self.closed or sent is None:
            self.expect(message, Routing.UNKNOWN)
            return
        self.settled = sent.number
        if sent.asked is None:
            self.expect(message, Routing.DELIVERED)
        else:
            self.last_reply(sent.asked, message, message if ok else words)

    @rule()
    def send_an_error(self) -> None:
        words = f"error {self.fresh()}."
        message = ServerMessage(ServerMessageType.ERROR, TaskStatus.ERROR, response_id=self.fresh(), error=words)
        oldest = next(iter(self.unanswered()), None)
        if self.closed:
            self.expect(message, Routing.UNKNOWN)
        elif oldest is None:
            self.expect(message, Routing.UNATTRIBUTED)
        else:
            self.settled = oldest.number
            if oldest.asked is None:
                self.expect(message, Routing.HEARTBEAT_REFUSED)
            elif oldest.asked.waiting:
                self.finish(oldest.asked, words)
                self.expect(message, Routing.DELIVERED)
                assert oldest.asked.real.waiting is False
            else:
                self.expect(message, Routing.LATE)

    @rule(type=st.sampled_from(list(ServerMessageType)))
    def send_a_message_that_answers_nothing(self, type: ServerMessageType) -> None:
        if type is not ServerMessageType.ERROR:
            name = self.fresh()
            self.expect(ServerMessage(type, TaskStatus.OK, session_id=name, response_id=name), Routing.UNKNOWN)

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        assert self.replies.statistics() == PendingStatistics(
            pending=sum(request.waiting for request in self.all),
            unanswered=len(self.unanswered()),
            late_replies=self.late,
            duplicate_replies=self.duplicate,
            unknown_replies=self.unknown,
            invalid_messages=self.broken,
            unattributed_errors=self.unattributed,
            forgotten=self.forgotten,
        )

    @invariant()
    def every_table_is_bounded(self) -> None:
        statistics = self.replies.statistics()
        assert statistics.pending <= MAX_PENDING
        assert statistics.unanswered <= MAX_PENDING
        assert len(self.replies._nameless) <= MAX_PENDING  # pyright: ignore[reportPrivateUsage]

    def teardown(self) -> None:
        """Check that after the close each request that was not abandoned has ended exactly once, with its last reply."""
        self.close()
        for request in self.all:
            self.read(request)
            if not request.abandoned:
                *first, last = request.got
                assert all(
                    reply.type is ServerMessageType.HEARTBEAT for reply in first if isinstance(reply, ServerMessage)
                )
                assert len(first) <= (1 if request.kind is TASK else 0)
                assert is_an_end(request.kind, last)


def is_an_end(kind: RequestKind, reply: Reply) -> bool:
    """Whether a reply ends a request of this kind."""
    match kind:
        case RequestKind.TASK:
            errors: tuple[type[Exception], ...] = (RequestRejected, InvalidMessage, ConnectionLost)
            type_ = ServerMessageType.TASK_END
        case RequestKind.DEVICE_INFO:
            errors = (RequestRejected, InvalidMessage, ConnectionLost)
            type_ = ServerMessageType.DEVICE_INFO_RESPONSE
        case _:
            errors = (RegistrationRejected, InvalidMessage, ConnectionLost)
            type_ = ServerMessageType.HEARTBEAT
    return type(reply) in errors if isinstance(reply, Exception) else reply.type is type_


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=200, stateful_step_count=50)
