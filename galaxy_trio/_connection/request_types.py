"""The data types of `PendingReplies`."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs
import trio

from galaxy_trio.messages import ServerMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable

Reply: TypeAlias = ServerMessage | Exception
"""The result of a request: a message from the server, or the error to raise instead."""

ReplyChannel: TypeAlias = tuple[trio.MemorySendChannel[Reply], trio.MemoryReceiveChannel[Reply]]


class RequestKind(Enum):
    """The kind of a request. Its value is its name in error messages."""

    REGISTRATION = "registration"
    HEARTBEAT = "heartbeat"
    DEVICE_INFO = "device information request"
    TASK = "task"


class Routing(Enum):
    """How a message from the server was routed."""

    DELIVERED = "delivered"
    """A pending request received its reply, or a heartbeat was acknowledged."""
    LATE = "late"
    """Its request had been abandoned."""
    DUPLICATE = "duplicate"
    """Its request had received this reply before."""
    UNKNOWN = "unknown"
    """It answers no request."""
    UNATTRIBUTED = "unattributed"
    """An error or a broken message that belongs to no request."""
    HEARTBEAT_REFUSED = "heartbeat refused"
    """An error in reply to a heartbeat."""


@attrs.define(eq=False)
class Request:
    """One request, from its registration to its end. Made by `PendingReplies.register`; its owner awaits `receive`."""

    kind: RequestKind
    key: str
    _channel: ReplyChannel | None
    waiting: bool = True
    """Its owner waits, and the last reply has not arrived."""
    handed_over: bool = False
    has_place: bool = False
    """Its first reply is still expected: neither it nor the first reply to a later message has arrived."""
    acknowledged: bool = False
    answered: bool = False
    """Its last reply has arrived, while it waited or later."""

    def receive(self) -> Awaitable[Reply]:
        """Wait for the next reply. A task has two, its acknowledgement and its end, in either order; every other request has one.

        Cancelling loses no reply. A caller that does not wait again must `PendingReplies.abandon` the request.

        Raises:
            trio.ClosedResourceError: The request was abandoned.
        """
        if self._channel is None:
            raise trio.ClosedResourceError("this request was abandoned: it receives no more replies")
        # Not awaited here: this saves a frame for each pending request, and there may be very many.
        return self._channel[1].receive()

    def receive_nowait(self) -> Reply | None:
        """Return the next reply if it has arrived."""
        try:
            return None if self._channel is None else self._channel[1].receive_nowait()
        except trio.WouldBlock:
            return None

    def deliver(self, reply: Reply) -> None:
        """Pass a reply to the owner. Never blocks: the buffer has room for every reply that a request can receive."""
        # Only waiting requests receive replies, and only abandoned ones have no channel.
        cast("ReplyChannel", self._channel)[0].send_nowait(reply)

    def release(self) -> None:
        """Drop the unread replies: they may be large, and the request is remembered for a while."""
        self._channel = None


@attrs.frozen
class PendingStatistics:
    """Counts since the connection opened, except `pending` and `unanswered`, which are current values.

    Attributes:
        pending: Requests whose callers wait for a reply.
        unanswered: Messages sent whose first reply has not arrived, including heartbeats and abandoned requests.
        late_replies: Replies to abandoned requests.
        duplicate_replies: Replies to requests that had been answered before.
        unknown_replies: Replies that answer no request.
        invalid_messages: Invalid messages.
        unattributed_errors: Errors from the server while no message was unanswered.
        forgotten: Places in the order of replies that were given up because there were too many.
    """

    pending: int
    unanswered: int
    late_replies: int
    duplicate_replies: int
    unknown_replies: int
    invalid_messages: int
    unattributed_errors: int
    forgotten: int
