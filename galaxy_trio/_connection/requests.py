"""A client's requests on a link, and the routing of their replies."""

from __future__ import annotations

import itertools
import math
from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._codec.codec import Template
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._connection.pending_replies import PendingReplies
from galaxy_trio._connection.receiver import Receiver
from galaxy_trio._connection.request_types import RequestKind, Routing
from galaxy_trio.errors import ConnectionLost, InvalidMessage, RequestTimeout
from galaxy_trio.events import (
    ConnectionEnded,
    DuplicateReplyReceived,
    EventFanOut,
    HeartbeatRefused,
    InvalidMessageReceived,
    LateReplyReceived,
    ServerErrorReceived,
    UnknownReplyReceived,
)
from galaxy_trio.messages import (
    JSON,
    ClientMessage,
    ClientMessageType,
    ClientType,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._connection.link import Link
    from galaxy_trio._connection.request_types import Reply, Request
    from galaxy_trio.events import Event

_FEW: Final = 20
"""The number of unanswered messages up to which the next one is written in the step that sends it."""


class Router(Receiver[ServerMessage]):
    """The `Receiver` of a connection: delivers each message to its request, and publishes an event for every other message."""

    def __init__(self, device_id: str, max_pending: int, on_event: Callable[[Event], None] | None = None) -> None:
        self._device_id = device_id
        self.replies: PendingReplies = PendingReplies(device_id, max_pending=max_pending)
        self.events: EventFanOut[Event] = EventFanOut(on_event)

    def received(self, message: ServerMessage) -> None:
        """Route a message; see `Receiver`."""
        device_id = self._device_id
        match self.replies.route(message):
            case Routing.DELIVERED:
                pass
            case Routing.LATE:
                self.events.publish(LateReplyReceived(device_id, message.type, message.session_id))
            case Routing.DUPLICATE:
                self.events.publish(DuplicateReplyReceived(device_id, message.type, message.session_id))
            case Routing.UNKNOWN:
                self.events.publish(UnknownReplyReceived(device_id, message.type, message.session_id))
            case Routing.UNATTRIBUTED:
                self.events.publish(ServerErrorReceived(device_id, message.error or ""))
            case _:
                # Routing.HEARTBEAT_REFUSED
                self.events.publish(HeartbeatRefused(device_id, message.error or ""))

    def received_invalid(self, invalid: InvalidMessage) -> None:
        """Route a broken message; see `Receiver`."""
        if self.replies.route_invalid(invalid) is not Routing.DELIVERED:
            self.events.publish(InvalidMessageReceived(self._device_id, str(invalid)))

    def ended(self, error: Callable[[], Exception]) -> None:
        """End every pending request; see `Receiver`."""
        self.replies.close(error)
        why = error()
        reason, code = (why.reason, why.code) if isinstance(why, ConnectionLost) else ("", 1000)
        self.events.publish(ConnectionEnded(self._device_id, reason, code))
        self.events.end()


@attrs.frozen
class Identity:
    """The names that a client uses on one connection.

    Attributes:
        client_id: The name that the client registers under.
        device_id: The connection's device; a device's own name is its `client_id` as well.
        client_name: Names a constellation's sessions and tasks; a device starts none.
        client_type: The client's role.
    """

    client_id: str
    device_id: str
    client_name: str = ""
    client_type: ClientType = ClientType.CONSTELLATION

    @property
    def target_id(self) -> str | None:
        """The device that the client's messages are for; None for a device."""
        return self.device_id if self.client_type is ClientType.CONSTELLATION else None

    def message(
        self,
        type: ClientMessageType,
        *,
        status: TaskStatus = TaskStatus.OK,
        session_id: str | None = None,
        task_name: str | None = None,
        target_id: str | None = None,
        request: str | None = None,
        request_id: str | None = None,
        metadata: dict[str, JSON] | None = None,
    ) -> ClientMessage:
        """Make a message from this client, with the current time."""
        return ClientMessage(
            type,
            status,
            client_type=self.client_type,
            session_id=session_id,
            task_name=task_name,
            client_id=self.client_id,
            target_id=target_id,
            request=request,
            timestamp=wall_clock.timestamp(),
            request_id=request_id,
            metadata=metadata,
        )


class Requests:
    """Sends requests on a link and waits for their replies."""

    def __init__(self, link: Link[ServerMessage], replies: PendingReplies, identity: Identity) -> None:
        self._link = link
        self._replies = replies
        self._identity = identity
        self._request_numbers = itertools.count(1)

    async def device_info(self, timeout: float) -> JSON:
        """Ask for the device's information; raises as `Connection.device_info` does."""
        request_id = f"device_info_{next(self._request_numbers)}"
        request = await self.send(
            self._device_info_request.text(timestamp=wall_clock.timestamp(), request_id=request_id),
            RequestKind.DEVICE_INFO,
            request_id,
            timeout,
        )
        # Waited for here: this saves a frame for each pending request, and there may be very many.
        try:
            with trio.move_on_after(timeout):
                return _message_or_raise(await request.receive()).result
        finally:
            self._replies.abandon(request)
        raise RequestTimeout(
            f"no reply to the {request.kind.value} for device {self._identity.device_id!r} within {timeout:g} s"
        )

    @cached_property
    def _device_info_request(self) -> Template:
        """The template of the most frequent request."""
        identity = self._identity
        message = identity.message(ClientMessageType.DEVICE_INFO_REQUEST, request_id="", target_id=identity.device_id)
        return Template(message, "timestamp", "request_id")

    async def send_task(self, task_id: str, request: str, timeout: float) -> Request:
        """Send a task; its replies name the session that `session_id` returns."""
        session_id = self.session_id(task_id)
        message: ClientMessage | str
        if self._link.has_room:
            message = self._task.text(
                session_id=session_id,
                task_name=self._task_name(task_id),
                request=request,
                timestamp=wall_clock.timestamp(),
            )
        else:
            # The text would be a second copy of the request during the wait.
            message = self._task_message(session_id, self._task_name(task_id), request)
        return await self.send(message, RequestKind.TASK, session_id, timeout)

    def session_id(self, task_id: str) -> str:
        """The id of a task's session on the server."""
        return f"{self._identity.client_name}@{task_id}"

    def _task_name(self, task_id: str) -> str:
        return f"galaxy/{self._identity.client_name}/{task_id}"

    @cached_property
    def _task(self) -> Template:
        return Template(self._task_message("", "", ""), "session_id", "task_name", "request", "timestamp")

    def _task_message(self, session_id: str, task_name: str, request: str) -> ClientMessage:
        return self._identity.message(
            ClientMessageType.TASK,
            status=TaskStatus.CONTINUE,
            session_id=session_id,
            task_name=task_name,
            target_id=self._identity.device_id,
            request=request,
        )

    async def send(self, message: ClientMessage | str, kind: RequestKind, key: str, timeout: float) -> Request:
        """Wait for room, then register a request and send it in one step."""
        # A caller that is cancelled together with the connection gets the cancellation, not the connection's end.
        await trio.lowlevel.checkpoint_if_cancelled()
        if not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds or math.inf, not {timeout!r}")

        def hand_over() -> Request:
            request = self._replies.register(kind, key)
            self._replies.hand_over(request)
            return request

        if self._link.has_room:
            # Many requests are gathered into one write. With few, writing each immediately is faster.
            return self._link.send_if_open(message, hand_over, gather=self._replies.unanswered > _FEW)
        # A request that cannot be registered must not wait first.
        self._replies.check()
        with trio.move_on_after(timeout):
            return await self._link.send(message, hand_over)
        raise RequestTimeout(
            f"the {kind.value} for device {self._identity.device_id!r} was not sent: the server read no messages for {timeout:g} s"
        )

    async def receive_end(self, task: Request, accepted: Callable[[], None]) -> ServerMessage:
        """Wait for the end of a task. `accepted` is called once, when the server has accepted it."""
        reply = _message_or_raise(await task.receive())
        # A task's end may arrive before its acknowledgement, and shows that the task was accepted.
        accepted()
        while reply.type is not ServerMessageType.TASK_END:
            # The end often arrives together with the acknowledgement: waiting would take another scheduler pass.
            reply = _message_or_raise(task.receive_nowait() or await task.receive())
        return reply

    async def register(self, metadata: dict[str, JSON]) -> str | None:
        """Register this client with the server, and wait for the confirmation.

        Returns:
            The server's time in it, as it stands there.
        """
        identity = self._identity
        message = identity.message(ClientMessageType.REGISTER, target_id=identity.target_id, metadata=metadata)
        request = await self.send(message, RequestKind.REGISTRATION, "", math.inf)
        try:
            return _message_or_raise(await request.receive()).timestamp
        finally:
            self._replies.abandon(request)

    async def beat(self) -> None:
        """Send a heartbeat."""
        target_id = self._identity.target_id
        metadata: dict[str, JSON] | None = None if target_id is None else {"device_id": target_id}
        message = self._identity.message(ClientMessageType.HEARTBEAT, metadata=metadata)
        await self._link.send(message, self._replies.hand_over_heartbeat)

    def abandon(self, request: Request) -> None:
        """Stop waiting for a request. Call it on every way out."""
        self._replies.abandon(request)


def _message_or_raise(reply: Reply) -> ServerMessage:
    if isinstance(reply, Exception):
        raise reply
    return reply
