"""Messages of the server for `PendingReplies`, with the replies that a request received."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs

from galaxy_trio._connection.pending_replies import MAX_PENDING, PendingReplies
from galaxy_trio._connection.request_types import RequestKind, Routing
from galaxy_trio.errors import InvalidMessage, RegistrationRejected, RequestRejected
from galaxy_trio.messages import JSON, ServerMessage, ServerMessageType, TaskStatus

if TYPE_CHECKING:
    from galaxy_trio._connection.request_types import Reply, Request


REGISTRATION, HEARTBEAT = RequestKind.REGISTRATION, RequestKind.HEARTBEAT
DEVICE_INFO, TASK = RequestKind.DEVICE_INFO, RequestKind.TASK
DELIVERED, LATE, DUPLICATE, UNKNOWN = Routing.DELIVERED, Routing.LATE, Routing.DUPLICATE, Routing.UNKNOWN
UNATTRIBUTED, HEARTBEAT_REFUSED = Routing.UNATTRIBUTED, Routing.HEARTBEAT_REFUSED
_response_numbers = itertools.count()


def fresh_id() -> str:
    """Make a response_id that names no request, as most messages of the server have."""
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
    """Make the acknowledgement of a heartbeat, which also confirms a registration."""
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
    """Remove and return the unread replies of a request."""
    replies: list[Reply] = []
    while (reply := request.receive_nowait()) is not None:
        replies.append(reply)
    return replies


def rejection(request: Request) -> str:
    """Return the server's reason from a refused request, which must have no other unread reply."""
    (reply,) = received(request)
    assert isinstance(reply, RequestRejected | RegistrationRejected)
    return reply.words


def counted(replies: PendingReplies) -> dict[str, int]:
    """Return the statistics that are not zero."""
    return {name: value for name, value in attrs.asdict(replies.statistics()).items() if value}
