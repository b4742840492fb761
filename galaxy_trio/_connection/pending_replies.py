"""The pending requests of one connection: registers them, and routes the server's messages to them.

Pure and synchronous: no socket, no clock, no task. A request is registered and then handed over, which gives it a place in the order of
first replies. Each message from the server is routed to at most one request, and each request ends in exactly one way. An ``error``
from the server names no request: the order decides which one it belongs to. The order decides nothing else.

See "Order of replies" in docs/reference/wire.md.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._connection.request_types import PendingStatistics, Request, RequestKind, Routing
from galaxy_trio.errors import GalaxyError, InvalidMessage, QueueFull, RegistrationRejected, RequestRejected
from galaxy_trio.messages import ServerMessage, ServerMessageType, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._connection.request_types import Reply, ReplyChannel

MAX_PENDING: Final = 10_000
"""The default limit of pending requests."""
HISTORY: Final = 1_000
"""Ended requests that are remembered, to tell late and duplicate replies from unknown ones."""
_QUOTED: Final = 500
"""Characters of the server's words that an error message quotes."""
_MAX_WORDS: Final = 2**16
"""Characters of the server's words that an error holds: a device that is not connected keeps its last error."""
_ADVICE: Final = {
    "is not connected": "; is the device's agent running, and under this name?",
    "already registered": "; another client uses this name, or the server has not noticed yet that it left",
}
"""What to do about common refusals."""


class PendingReplies:
    """The requests of one connection that have no reply yet.

    Args:
        device_id: The connection's device, for error messages.
        max_pending: The limit of requests that wait, and of places in the order of first replies.
    """

    def __init__(self, device_id: str, *, max_pending: int = MAX_PENDING) -> None:
        self._device_id = device_id
        self._max_pending = max_pending
        self._waiting: dict[str, Request] = {}
        self._ended: OrderedDict[str, Request] = OrderedDict()
        self._order: deque[Request] = deque()
        # The part of the order whose replies name no request. Places end from the left, so stale ones are always first.
        self._nameless: deque[Request] = deque()
        self._closed: Callable[[], Exception] | None = None
        self._late = self._duplicate = self._unknown = self._invalid = self._unattributed = self._forgotten = 0

    def register(self, kind: RequestKind, key: str = "") -> Request:
        """Make a request that can receive replies. Call it before any part of the request is sent.

        Args:
            kind: The kind of request.
            key: The name in its replies: the request id of a device information request, the session id of a task.
                Empty for a registration, whose reply has no name.

        Raises:
            QueueFull: `max_pending` requests are waiting already.
            ValueError: The key was used before, or the kind is a heartbeat.
            Exception: The error that `close` was given, if the connection has ended.
        """
        self.check()
        if kind is RequestKind.HEARTBEAT:
            raise ValueError("a heartbeat has no caller that waits for its reply: use hand_over_heartbeat")
        name = key or kind.value
        if name in self._waiting or name in self._ended:
            raise ValueError(f"a {kind.value} named {name!r} was sent before on this connection: use each name once")
        # A task receives its acknowledgement and its end, and neither may find the buffer full.
        # Annotated instead of subscripted: subscripting takes longer than making the channel.
        channel: ReplyChannel = trio.open_memory_channel(2 if kind is RequestKind.TASK else 1)
        request = Request(kind, name, channel)
        self._waiting[name] = request
        return request

    def check(self) -> None:
        """Raise the error that a new request would get: the connection's end, or `QueueFull`."""
        if self._closed is not None:
            raise self._closed()
        if len(self._waiting) >= self._max_pending:
            raise QueueFull(
                f"{self._max_pending} requests are already pending on the connection for device {self._device_id!r}: "
                "nothing was sent; wait for some to end"
            )

    def is_free_for(self, key: str) -> bool:
        """Whether no request waits or lacks its first reply, and the last `HISTORY` requests did not use this key."""
        return not self._waiting and not self._order and key not in self._ended

    def hand_over(self, request: Request) -> None:
        """Give a request the last place in the order of first replies. Call it in the step that sends its message."""
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
        """Give a heartbeat, which has no caller that waits, its place in the order."""
        self.hand_over(Request(RequestKind.HEARTBEAT, "", None, waiting=False))

    def abandon(self, request: Request) -> None:
        """Stop waiting for a request, and drop its unread replies.

        It keeps its place in the order until its first reply, or a later message's, arrives. Replies to it are counted and dropped.
        """
        if request.waiting:
            self._end(request)
        request.release()

    @property
    def unanswered(self) -> int:
        """The number of messages that were handed over and have no first reply."""
        return len(self._order)

    def close(self, error: Callable[[], Exception]) -> None:
        """End every request in this step, because the connection has ended. Later calls and messages change nothing.

        Args:
            error: Makes a fresh exception for each request that waits, and for each that registers later.
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

    def route(self, message: ServerMessage) -> Routing:
        """Deliver a message to the request that it answers. Never blocks or raises."""
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
        """End the request that a broken message names, as far as the name is readable."""
        self._invalid += 1
        request = (
            self._find(invalid.response_id, RequestKind.DEVICE_INFO)
            or self._find(invalid.session_id, RequestKind.TASK)
            or self._oldest_if_registration()
        )
        if request is None:
            return Routing.UNATTRIBUTED
        if request.kind is not RequestKind.TASK or invalid.type == ServerMessageType.HEARTBEAT:
            # A task's end is not a first reply, and a message without a readable type may be an end.
            self._settle(request)
        if not request.waiting:
            return Routing.UNATTRIBUTED
        # A fresh object: the traceback of the raised one refers to frames that hold the whole text.
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
        # Not `answered`: if the order was wrong, the request's own reply arrives later and counts as late.
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
            # A task's end may overtake its acknowledgement, which is the first reply and keeps its place.
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
        words = words[:_MAX_WORDS]
        said = " ".join(words[:_QUOTED].split()) or "it gave no reason"
        sentence = f"the server refused the {kind.value} for device {self._device_id!r}: {said}"
        if kind is RequestKind.REGISTRATION:
            advice = next((advice for known, advice in _ADVICE.items() if known in words.lower()), "")
            return RegistrationRejected(f"{sentence}{advice}", words=words)
        return RequestRejected(sentence, words=words)

    def _find(self, key: str | None, kind: RequestKind) -> Request | None:
        """The request that a reply names, if it was handed over: nothing can answer it before."""
        request = (self._waiting.get(key) or self._ended.get(key)) if key else None
        return request if request is not None and request.kind is kind and request.handed_over else None

    def _settle(self, request: Request) -> None:
        """Record a first reply. The messages before it get no first reply any more, so their places end too."""
        while request.has_place:
            self._order.popleft().has_place = False
        self._drop_answered()

    def _drop_answered(self) -> None:
        """Give up the oldest places while they belong to ended tasks.

        Such a task was accepted, so an error cannot belong to it: only its acknowledgement is still missing.
        """
        while self._order and self._order[0].answered:
            self._order.popleft().has_place = False

    def _oldest_if_registration(self) -> Request | None:
        """The registration, while it is the oldest message without a reply: nothing can arrive before its reply."""
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
        """Stop waiting for a request, and remember it for a while to recognise late and duplicate replies."""
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
        """Return the number of pending requests, and counts of messages that belonged to none."""
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
