"""The constellation's role: ask a server about one device, and give that device tasks, any number at once on one connection."""

from __future__ import annotations

import secrets
import uuid
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio._arguments import (
    MAX_ID,
    MAX_MESSAGE_SIZE,
    check_client_name,
    check_name,
    check_positive,
    check_task_id,
)
from galaxy_trio._codec.codec import decode_server_message, structure_device_info
from galaxy_trio._connection.client_link import open_client_link, owning, register
from galaxy_trio._connection.pending_replies import MAX_PENDING, Request
from galaxy_trio._connection.requests import Conversation, Identity, Router
from galaxy_trio.errors import RequestTimeout
from galaxy_trio.events import BACKLOG, ConnectionOpened, EventStream
from galaxy_trio.messages import DeviceInfo, ServerMessage, TaskResult

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Iterable
    from contextlib import AbstractContextManager

    from galaxy_trio._connection.link import Link
    from galaxy_trio.errors import ConnectionLost
    from galaxy_trio.events import Event


@attrs.frozen
class ConnectionStatistics:
    """What a connection has seen so far. Counts, but for `pending`, `unanswered` and `bytes_held`, which are of now.

    Attributes:
        pending: Requests that somebody waits for.
        unanswered: Messages whose first reply has not come; heartbeats and abandoned requests among them.
        late_replies: Replies to requests that were given up.
        duplicate_replies: Replies to requests that had been answered.
        unknown_replies: Replies to nothing that was asked.
        invalid_messages: Broken messages.
        unattributed_errors: Errors of the server that answer nothing.
        forgotten: Places in the order of replies that were given up because there were too many.
        messages_sent: Messages sent, heartbeats among them.
        messages_received: Messages received, broken ones among them.
        bytes_held: Bytes sent that the network has not taken yet.
    """

    pending: int
    unanswered: int
    late_replies: int
    duplicate_replies: int
    unknown_replies: int
    invalid_messages: int
    unattributed_errors: int
    forgotten: int
    messages_sent: int
    messages_received: int
    bytes_held: int


@attrs.frozen(eq=False)
class SentTask:
    """A task that was sent. Made by `Connection.send_task`."""

    task_id: str
    device_id: str
    _conversation: Conversation = attrs.field(repr=False)
    _request: Request = attrs.field(repr=False)

    async def wait(self, accepted: Callable[[], None]) -> TaskResult:
        """Wait for its end; errors are those of `Connection.run_task`. Cancelling loses nothing: it can be waited for again.

        Args:
            accepted: Called once, when the server has accepted it.
        """
        end = await self._conversation.receive_end(self._request, accepted)
        return TaskResult(self.task_id, self.device_id, end.status, end.result, end.error)

    @property
    def is_settled(self) -> bool:
        """Whether both its acknowledgement and its end have arrived, after which the server sends nothing more for it."""
        return self._request.acknowledged and self._request.answered

    def abandon(self) -> None:
        """Nobody waits for it any more: what still comes for it is counted and dropped."""
        self._conversation.abandon(self._request)


class Connection:
    """A registered connection to a server, for one device. Made by `open_connection`.

    Any number of tasks may use it at once. Nothing on it hangs: every request ends in its reply, an error, or its caller's cancellation.
    """

    def __init__(
        self, link: Link[ServerMessage], router: Router, conversation: Conversation, identity: Identity
    ) -> None:
        self._link = link
        self._router = router
        self._conversation = conversation
        self._identity = identity

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Connection {self._identity.client_id!r} for device {self._identity.device_id!r}, {state}>"

    @property
    def device_id(self) -> str:
        """The device that this connection is for."""
        return self._identity.device_id

    @property
    def client_id(self) -> str:
        """The name under which this connection is registered with the server."""
        return self._identity.client_id

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, whoever ended it; requests raise from then on."""
        return self._link.closed

    @property
    def last_received(self) -> float:
        """When the last byte came from the server, on trio's clock."""
        return self._link.last_received

    async def wait_closed(self) -> ConnectionLost | None:
        """Wait until the connection has ended.

        Returns:
            Why it was lost; None if the block of `open_connection` has ended.
        """
        return await self._link.wait_closed()

    async def is_alive(self, *, timeout: float = 2.0) -> bool:
        """Send a WebSocket ping, and return whether any byte arrives from the server in time. Cancelling is safe.

        Args:
            timeout: Seconds to wait; `math.inf` for no limit.
        """
        return await self._link.is_alive(timeout)

    @property
    def may_have_unread(self) -> bool:
        """Whether something may have arrived that the receiver has not read yet. It does so within a few scheduler passes."""
        return self._link.may_have_unread

    def is_free_for(self, task_id: str) -> bool:
        """Whether a task could have the connection to itself.

        That is: it is open, nothing on it is pending, unanswered or unwritten, and no task of this id was sent on it lately.
        """
        return self._link.is_idle and self._router.replies.is_free_for(self._conversation.session_id(task_id))

    async def device_info(self, *, timeout: float = 10.0) -> DeviceInfo:
        """Ask the server what it knows about this device.

        Any number of tasks may ask at once. Cancelling is safe: nothing is left behind, and a reply that comes later is counted and
        dropped.

        Args:
            timeout: Seconds to wait for the reply, from the send on; `math.inf` for no limit.

        Raises:
            RequestTimeout: No reply came in time, or the connection took no more messages for as long.
            RequestRejected: The server refused, or has no information; with its reason.
            InvalidMessage: The reply is broken.
            QueueFull: Too many requests wait already; nothing was sent.
            ConnectionLost: The connection ended first.
            trio.ClosedResourceError: This side closed it.

        See "Device information" in docs/reference/wire.md.
        """
        return structure_device_info(await self._conversation.device_info(timeout))

    async def run_task(
        self,
        request: str,
        *,
        timeout: float = 1000.0,
        task_id: str | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Give the device a task, and wait for its end.

        With ``await nursery.start(connection.run_task, "…")`` the call returns the task's id when the server has accepted it.

        Cancelling, and the timeout, abandon the task: **it goes on on the device**, for AIP can stop it only by ending the connection.
        Nothing is left behind here, and what still comes for it is counted and dropped.

        Args:
            request: What to do, in words.
            timeout: Seconds to wait for the end, from the send on; `math.inf` for no limit.
            task_id: The task's name, used once, of at most 64 characters; a fresh uuid if not given.
            task_status: Told the task's id when the server has accepted it.

        Returns:
            How it ended, well or not: `TaskResult.unwrap` raises if not well.

        Raises:
            RequestTimeout: It did not end in time, or the connection took no more messages for as long.
            RequestRejected: The server refused it, with its reason; it never ran.
            InvalidMessage: A reply is broken, or the request holds what JSON cannot.
            MessageTooLarge: The request is above the connection's limit; nothing was sent.
            QueueFull: Too many requests wait already; nothing was sent.
            ConnectionLost: The connection ended first; whether the task ran is not known.
            trio.ClosedResourceError: This side closed it.
            ValueError: The `task_id` was used before, or is too long.

        See "Task" in docs/reference/wire.md.
        """
        sent = await self.send_task(request, timeout=timeout, task_id=task_id)
        try:
            with trio.move_on_after(timeout):
                return await sent.wait(partial(task_status.started, sent.task_id))
            raise RequestTimeout(f"task {sent.task_id!r} did not end on device {self.device_id!r} within {timeout:g} s")
        finally:
            sent.abandon()

    async def send_task(self, request: str, *, timeout: float = 1000.0, task_id: str | None = None) -> SentTask:
        """Send the device a task, and go on: the first half of `run_task`, for those who must know when it was sent.

        Cancelling is safe: the task was not sent then. Whoever is given one must `SentTask.abandon` it on every way out.

        Args:
            request: What to do, in words.
            timeout: Seconds to wait for room to send it; `math.inf` for no limit.
            task_id: As for `run_task`.

        Raises:
            RequestTimeout: The connection took no more messages for as long. Nothing was sent.
            Exception: As for `run_task`; whatever it is, nothing was sent.
        """
        task_id = str(uuid.uuid4()) if task_id is None else check_task_id(task_id)
        sent = await self._conversation.send_task(task_id, request, timeout)
        return SentTask(task_id, self._identity.device_id, self._conversation, sent)

    def subscribe(self, backlog: int = BACKLOG) -> AbstractContextManager[EventStream]:
        """Receive what happens on this connection without being asked for, from now on until it ends.

        ``with connection.subscribe() as events: async for event in events: …``

        Args:
            backlog: How many events may wait for this subscriber. One that lags further loses the oldest, and gets `EventsLost`.
        """
        return self._router.events.subscribe(backlog)

    def statistics(self) -> ConnectionStatistics:
        """What the connection has seen so far, and holds now."""
        return ConnectionStatistics(
            **attrs.asdict(self._router.replies.statistics()),
            messages_sent=self._link.messages_sent,
            messages_received=self._link.messages_received,
            bytes_held=self._link.bytes_held,
        )


@asynccontextmanager
async def open_connection(
    url: str,
    device_id: str,
    *,
    client_name: str = "galaxy_trio",
    client_id: str | None = None,
    token: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    stream: trio.abc.Stream | None = None,
    connect_timeout: float = 60.0,
    register_timeout: float = 30.0,
    heartbeat_interval: float = 30.0,
    liveness_timeout: float = 180.0,
    ping_interval: float | None = None,
    max_message_size: int = MAX_MESSAGE_SIZE,
    max_pending: int = MAX_PENDING,
    on_event: Callable[[Event], None] | None = None,
) -> AsyncGenerator[Connection]:
    """Connect to a server as a constellation, for one device, for the length of the block.

    The block begins when the server has confirmed the registration. It goes on when the connection is lost: requests raise then, and
    `Connection.wait_closed` tells. What the block raises comes out as it is. Its end closes in good order, within 3 s; cancelling it closes
    the socket at once, and the server stops this connection's tasks.

    Args:
        url: ``ws://HOST[:PORT][/PATH]`` or ``wss://…``; without a path, ``/ws``.
        device_id: The device to ask about and to give tasks; it must be connected to the server.
        client_name: Names this program's sessions and tasks; at most 64 characters.
        client_id: The name to register under, which nobody else may have; ``{client_name}-{6 hex digits}@{device_id}`` if not given.
        token: The server's API key. It is never shown.
        headers: Sent with the handshake, as pairs of name and value.
        ssl_context: For ``wss``, in place of the default, which verifies the server's certificate and name.
        stream: Used in place of TCP, and closed at the end: a proxy's, a Unix socket's, a test's.
        connect_timeout: Seconds for DNS, TCP, TLS and the WebSocket handshake.
        register_timeout: Seconds for the server to confirm the registration.
        heartbeat_interval: Seconds between heartbeats.
        liveness_timeout: Seconds without a single byte from the server after which the connection is lost.
        ping_interval: Seconds between WebSocket pings; None, the default, for none: the server answers heartbeats.
        max_message_size: Bytes that a message may have, both ways. One at the default limit of 100 MiB can hold the event loop
            for a second or two: docs/performance.md.
        max_pending: Requests that may wait at once; one more raises `QueueFull`.
        on_event: Called with each event of this connection in the step in which it happens, those before the block begins among them;
            must neither block nor raise.

    Raises:
        ConfigError: What was asked for cannot be right: the URL, a header, a limit.
        ConnectFailed: No connection came about; see its kinds `ConnectTimeout`, `HandshakeRejected`, `RegistrationRejected`.

    See "Registration" in docs/reference/wire.md.
    """
    async with owning(stream):
        check_name("device_id", device_id, MAX_ID)
        check_client_name(client_name)
        if client_id is not None:
            check_name("client_id", client_id, MAX_ID)
        check_positive(
            heartbeat_interval=heartbeat_interval, register_timeout=register_timeout, max_pending=max_pending
        )
        identity = Identity(device_id, client_name, client_id or f"{client_name}-{secrets.token_hex(3)}@{device_id}")
        router = Router(device_id, max_pending, on_event)
        async with open_client_link(
            url,
            router,
            decode_server_message,
            peer=f"the server for device {device_id!r}",
            token=token,
            headers=headers,
            ssl_context=ssl_context,
            stream=stream,
            connect_timeout=connect_timeout,
            liveness_timeout=liveness_timeout,
            ping_interval=ping_interval,
            max_message_size=max_message_size,
        ) as link:
            router.events.publish(ConnectionOpened(device_id))
            conversation = Conversation(link, router.replies, identity)
            await register(link, conversation.register, register_timeout)
            link.start_heartbeats(heartbeat_interval, conversation.beat)
            yield Connection(link, router, conversation, identity)
