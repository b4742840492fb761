"""Who waits for what on one connection, and to whom each message from the server belongs.

Pure and synchronous: no socket, no clock, no task. A request is registered and then handed over; from then on it has a place in the
order of first replies. Each message from the server is routed to at most one request, which ends in exactly one way. An ``error`` of
the server names no request: the order tells whose it is, and decides on nothing else.

See "Order of replies" in docs/reference/wire.md.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import attrs
import trio

from galaxy_trio.errors import GalaxyError, InvalidMessage, QueueFull, RegistrationRejected, RequestRejected
from galaxy_trio.messages import ServerMessage, ServerMessageType, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Reply: TypeAlias = ServerMessage | Exception
"""What a request gets: a message of the server, or the error to raise in its stead."""

MAX_PENDING: Final = 10_000
_QUOTED: Final = 500
# What to do about the refusals that everybody meets once.
_ADVICE: Final = {
    "is not connected": "; is the device's agent running, and under this name?",
    "already registered": "; another client has this name, or its end has not been noticed yet",
}
"""How many characters of the server's words an error's sentence quotes."""
HISTORY: Final = 1_000
"""How many ended requests are remembered, to tell late and duplicate replies from unknown ones."""


_Channel: TypeAlias = tuple[trio.MemorySendChannel[Reply], trio.MemoryReceiveChannel[Reply]]


class RequestKind(Enum):
    """What was asked; its value is what error messages call it."""

    REGISTRATION = "registration"
    HEARTBEAT = "heartbeat"
    DEVICE_INFO = "device information request"
    TASK = "task"


class Routing(Enum):
    """What became of a message from the server."""

    DELIVERED = "delivered"
    """It was the reply that somebody waits for, or the acknowledgement of a heartbeat."""
    LATE = "late"
    """Whoever asked for it has gone."""
    DUPLICATE = "duplicate"
    """Its request had this reply already."""
    UNKNOWN = "unknown"
    """Nothing was asked that it could answer."""
    UNATTRIBUTED = "unattributed"
    """An error, or a broken message, that is nobody's."""
    HEARTBEAT_REFUSED = "heartbeat refused"
    """An error in answer to a heartbeat."""


@attrs.define(eq=False)
class Request:
    """One request, from its registration to its end. Made by `PendingReplies.register`; its owner awaits `receive`."""

    kind: RequestKind
    key: str
    _channel: _Channel | None
    waiting: bool = True
    """Somebody waits, and the last reply has not come."""
    handed_over: bool = False
    has_place: bool = False
    """Its first reply is still to come, and no later message's has come."""
    acknowledged: bool = False
    answered: bool = False
    """Its last reply has come, while it waited or later."""

    def receive(self) -> Awaitable[Reply]:
        """Wait for the next reply: a task has two, its acknowledgement and its end, in either order; all else has one.

        Cancelling loses no reply, but whoever does not come back must `PendingReplies.abandon` the request.

        Raises:
            trio.ClosedResourceError: It was abandoned.
        """
        if self._channel is None:
            raise trio.ClosedResourceError("this request was abandoned: nothing comes any more")
        # Not awaited here: one frame less for each request that waits, of which there may be very many.
        return self._channel[1].receive()

    def receive_nowait(self) -> Reply | None:
        """The next reply, if it is there already."""
        try:
            return None if self._channel is None else self._channel[1].receive_nowait()
        except trio.WouldBlock:
            return None

    def deliver(self, reply: Reply) -> None:
        """Give it a reply. Never blocks: the buffer holds all that a request can get."""
        # Only what waits is given anything, and only what was abandoned has no channel.
        cast("_Channel", self._channel)[0].send_nowait(reply)

    def release(self) -> None:
        """Let go of replies that nobody will read: they may be large, and the request is remembered for a while."""
        self._channel = None


@attrs.frozen
class PendingStatistics:
    """Counts since the connection opened, but for `pending` and `unanswered`, which are of now.

    Attributes:
        pending: Requests that somebody waits for.
        unanswered: Messages handed over whose first reply has not come; heartbeats and abandoned requests among them.
        late_replies: Replies to requests that were given up.
        duplicate_replies: Replies to requests that had been answered.
        unknown_replies: Replies to nothing that was asked.
        invalid_messages: Broken messages.
        unattributed_errors: Errors of the server while no message was without its first reply.
        forgotten: Places in the order that were given up because there were too many.
    """

    pending: int
    unanswered: int
    late_replies: int
    duplicate_replies: int
    unknown_replies: int
    invalid_messages: int
    unattributed_errors: int
    forgotten: int


class PendingReplies:
    """The requests of one connection that have no reply yet.

    Args:
        device_id: The device that the connection is for: error messages name it.
        max_pending: How many requests may wait at once, and how many places the order has.
    """

    def __init__(self, device_id: str, *, max_pending: int = MAX_PENDING) -> None:
        self._device_id = device_id
        self._max_pending = max_pending
        self._waiting: dict[str, Request] = {}
        self._ended: OrderedDict[str, Request] = OrderedDict()
        self._order: deque[Request] = deque()
        # Those of them whose reply names nothing. Places go from the left, so the stale ones are always first.
        self._nameless: deque[Request] = deque()
        self._closed: Callable[[], Exception] | None = None
        self._late = self._duplicate = self._unknown = self._invalid = self._unattributed = self._forgotten = 0

    # ---- the side of whoever asks

    def register(self, kind: RequestKind, key: str = "") -> Request:
        """Make a request that can be answered; nothing of it may have been sent.

        Args:
            kind: What is asked.
            key: What its replies name: the request id of a device information request, the session id of a task.
                Empty for a registration, whose reply names nothing.

        Raises:
            QueueFull: `max_pending` requests wait already.
            ValueError: The key was used before, or nobody waits for a reply of this kind.
            Exception: What `close` was given, if the connection has ended.
        """
        self.check()
        if kind is RequestKind.HEARTBEAT:
            raise ValueError("nobody waits for a heartbeat's reply: hand over the heartbeat alone")
        name = key or kind.value
        if name in self._waiting or name in self._ended:
            raise ValueError(
                f"a {kind.value} named {name!r} was sent before on this connection: a name can be used once"
            )
        # A task gets its acknowledgement and its end, and neither may find the buffer full.
        # Typed here and not by brackets, which take longer than to make the channel.
        channel: _Channel = trio.open_memory_channel(2 if kind is RequestKind.TASK else 1)
        request = Request(kind, name, channel)
        self._waiting[name] = request
        return request

    def check(self) -> None:
        """Raise what a new request would meet: the connection's end, or `QueueFull`."""
        if self._closed is not None:
            raise self._closed()
        if len(self._waiting) >= self._max_pending:
            raise QueueFull(
                f"{self._max_pending} requests wait already on the connection for device {self._device_id!r}: nothing was sent; "
                "wait for some to end"
            )

    def is_free_for(self, key: str) -> bool:
        """Whether no request waits, none lacks its first reply, and this key was not used among the last `HISTORY` requests."""
        return not self._waiting and not self._order and key not in self._ended

    def hand_over(self, request: Request) -> None:
        """The request's message is on its way: it takes the last place in the order of first replies."""
        if self._closed is not None:
            return
        if len(self._order) >= self._max_pending:
            self._order.popleft().has_place = False
            self._forgotten += 1
            self._drop_answered()
        request.handed_over = request.has_place = True
        self._order.append(request)
        if request.kind in (RequestKind.REGISTRATION, RequestKind.HEARTBEAT):
            self._oldest_nameless()
            self._nameless.append(request)

    def hand_over_heartbeat(self) -> None:
        """A heartbeat is on its way: it takes its place in the order, and nobody waits for it."""
        self.hand_over(Request(RequestKind.HEARTBEAT, "", None, waiting=False))

    def abandon(self, request: Request) -> None:
        """Nobody waits for it any more, and nobody will read what it got.

        It keeps its place in the order until its first reply comes or a later message's does; replies to it are counted and dropped.
        """
        if request.waiting:
            self._end(request)
        request.release()

    @property
    def unanswered(self) -> int:
        """How many messages were handed over and have no first reply."""
        return len(self._order)

    def close(self, error: Callable[[], Exception]) -> None:
        """End every request at once: the connection has ended. Later calls, and later messages, change nothing.

        Args:
            error: Makes a fresh exception for each that waits, and for each that registers from now on.
        """
        if self._closed is not None:
            return
        self._closed = error
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._ended.clear()
        self._order.clear()
        self._nameless.clear()
        for request in waiting:
            request.waiting = request.has_place = False
            request.deliver(error())

    # ---- the side of the receiver

    def route(self, message: ServerMessage) -> Routing:
        """Give a message to whom it belongs. Never blocks and never raises."""
        if self._closed is not None:
            return Routing.UNKNOWN
        match message.type:
            case ServerMessageType.ERROR:
                return self._route_error(message)
            case ServerMessageType.HEARTBEAT:
                if message.session_id is None:
                    return self._route_unnamed_heartbeat(message)
                return self._route_acknowledgement(message.session_id, message)
            case ServerMessageType.TASK_END:
                return self._route_end(message.session_id, RequestKind.TASK, message)
            case ServerMessageType.DEVICE_INFO_RESPONSE:
                return self._route_end(
                    message.response_id, RequestKind.DEVICE_INFO, self._refusal_in(message) or message
                )
            case _:
                return self._count(Routing.UNKNOWN)

    def route_invalid(self, invalid: InvalidMessage) -> Routing:
        """Give a broken message to whom it belongs: the request that it names, as far as that can still be read."""
        self._invalid += 1
        request = (
            self._find(invalid.response_id, RequestKind.DEVICE_INFO)
            or self._find(invalid.session_id, RequestKind.TASK)
            or self._oldest_if_registration()
        )
        if request is None:
            return Routing.UNATTRIBUTED
        if request.kind is not RequestKind.TASK or invalid.type == ServerMessageType.HEARTBEAT:
            # A task's end is no first reply, and one that does not say what it is may be an end.
            self._settle(request)
        if not request.waiting:
            return Routing.UNATTRIBUTED
        # A fresh object: the one that was raised has frames in its traceback, and they hold the whole text.
        sentence = f"the reply to the {request.kind.value} for device {self._device_id!r} is broken: {invalid}"
        fresh = InvalidMessage(
            sentence, type=invalid.type, response_id=invalid.response_id, session_id=invalid.session_id
        )
        self._finish(request, fresh)
        return Routing.DELIVERED

    def _route_error(self, message: ServerMessage) -> Routing:
        if not self._order:
            return self._count(Routing.UNATTRIBUTED)
        oldest = self._order[0]
        self._settle(oldest)
        if oldest.kind is RequestKind.HEARTBEAT:
            return Routing.HEARTBEAT_REFUSED
        if not oldest.waiting:
            return self._count(Routing.LATE)
        # Not `answered`: if the order misled us, its own reply is still to come, and late then.
        self._end(oldest)
        oldest.deliver(self._refused(oldest.kind, message.error or ""))
        return Routing.DELIVERED

    def _route_unnamed_heartbeat(self, message: ServerMessage) -> Routing:
        request = self._oldest_nameless()
        if request is None:
            return self._count(Routing.UNKNOWN)
        self._settle(request)
        if request.kind is RequestKind.REGISTRATION:
            if not request.waiting:
                return self._count(Routing.LATE)
            ok = message.status is TaskStatus.OK
            self._finish(
                request, message if ok else self._refused(request.kind, message.error or f"status {message.status}")
            )
        return Routing.DELIVERED

    def _route_acknowledgement(self, key: str, message: ServerMessage) -> Routing:
        request = self._find(key, RequestKind.TASK)
        if request is None:
            return self._count(Routing.UNKNOWN)
        if request.acknowledged:
            return self._count(Routing.DUPLICATE)
        request.acknowledged = True
        self._settle(request)
        if request.waiting:
            request.deliver(message)
        elif not request.answered:
            return self._count(Routing.LATE)
        return Routing.DELIVERED

    def _route_end(self, key: str | None, kind: RequestKind, reply: Reply) -> Routing:
        request = self._find(key, kind)
        if request is None:
            return self._count(Routing.UNKNOWN)
        if request.answered:
            return self._count(Routing.DUPLICATE)
        if kind is not RequestKind.TASK:
            # A task's end may overtake its acknowledgement, which is its first reply and keeps its place.
            self._settle(request)
        if request.waiting:
            self._finish(request, reply)
            return Routing.DELIVERED
        request.answered = True
        self._drop_answered()
        return self._count(Routing.LATE)

    def _refusal_in(self, message: ServerMessage) -> GalaxyError | None:
        result = message.result
        if message.status in (TaskStatus.ERROR, TaskStatus.FAILED):
            return self._refused(RequestKind.DEVICE_INFO, message.error or f"status {message.status}")
        if isinstance(result, dict) and "error" in result and "device_id" not in result:
            words = result["error"]
            return self._refused(RequestKind.DEVICE_INFO, "" if words is None else str(words))
        return None

    def _refused(self, kind: RequestKind, words: str) -> GalaxyError:
        said = " ".join(words[:_QUOTED].split()) or "it gave no reason"
        sentence = f"the server refused the {kind.value} for device {self._device_id!r}: {said}"
        if kind is RequestKind.REGISTRATION:
            advice = next((advice for said, advice in _ADVICE.items() if said in words.lower()), "")
            return RegistrationRejected(f"{sentence}{advice}", words=words)
        return RequestRejected(sentence, words=words)

    # ---- the tables

    def _find(self, key: str | None, kind: RequestKind) -> Request | None:
        """The request that a reply names, unless it was never handed over: nothing can answer it then."""
        request = (self._waiting.get(key) or self._ended.get(key)) if key else None
        return request if request is not None and request.kind is kind and request.handed_over else None

    def _settle(self, request: Request) -> None:
        """Its first reply has come, which shows that those of the messages before it will not."""
        while request.has_place:
            self._order.popleft().has_place = False
        self._drop_answered()

    def _drop_answered(self) -> None:
        """Give up the oldest places while they are those of ended tasks.

        Such a task was accepted, so no error can be its own any more; only its acknowledgement is still to come.
        """
        while self._order and self._order[0].answered:
            self._order.popleft().has_place = False

    def _oldest_if_registration(self) -> Request | None:
        """The registration, while it is the oldest without a reply: nothing can come before its answer."""
        oldest = self._order[0] if self._order else None
        return oldest if oldest is not None and oldest.kind is RequestKind.REGISTRATION else None

    def _oldest_nameless(self) -> Request | None:
        while self._nameless and not self._nameless[0].has_place:
            self._nameless.popleft()
        return self._nameless[0] if self._nameless else None

    def _finish(self, request: Request, reply: Reply) -> None:
        self._end(request)
        request.answered = True
        self._drop_answered()
        request.deliver(reply)

    def _end(self, request: Request) -> None:
        """It no longer waits; it is remembered for a while, to know its late replies and duplicates by."""
        request.waiting = False
        del self._waiting[request.key]
        if len(self._ended) >= HISTORY:
            self._ended.popitem(last=False)
        self._ended[request.key] = request

    def _count(self, routing: Routing) -> Routing:
        match routing:
            case Routing.LATE:
                self._late += 1
            case Routing.DUPLICATE:
                self._duplicate += 1
            case Routing.UNATTRIBUTED:
                self._unattributed += 1
            case _:
                self._unknown += 1
        return routing

    def statistics(self) -> PendingStatistics:
        """How many requests wait, and what came that belonged to none of them."""
        return PendingStatistics(
            pending=len(self._waiting),
            unanswered=self.unanswered,
            late_replies=self._late,
            duplicate_replies=self._duplicate,
            unknown_replies=self._unknown,
            invalid_messages=self._invalid,
            unattributed_errors=self._unattributed,
            forgotten=self._forgotten,
        )
