"""A constellation's connection to a server, for one device: concurrent requests and tasks."""

from __future__ import annotations

import secrets
import uuid
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._arguments import (
    MAX_ID,
    check_client_name,
    check_name,
    check_positive,
    check_task_id,
)
from galaxy_trio._codec.codec import decode_server_message, structure_device_info
from galaxy_trio._connection.client_link import open_client_link, owning, register
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._connection.pending_replies import MAX_PENDING
from galaxy_trio._connection.request_types import PendingStatistics, Request
from galaxy_trio._connection.requests import Identity, Requests, Router
from galaxy_trio.errors import RequestTimeout
from galaxy_trio.events import BACKLOG, ConnectionOpened, EventStream
from galaxy_trio.messages import JSON, DeviceInfo, ServerMessage, TaskResult

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Iterable
    from contextlib import AbstractContextManager

    from galaxy_trio._connection.link import Link
    from galaxy_trio.errors import ConnectionLost
    from galaxy_trio.events import Event


@attrs.frozen
class ConnectionStatistics(PendingStatistics):
    """Counts since the connection opened, except `pending`, `unanswered` and `bytes_held`, which are current values.

    It has the attributes of `PendingStatistics`, and these:

    Attributes:
        messages_sent: Messages sent, including heartbeats.
        messages_received: Messages received, including invalid ones.
        bytes_held: Bytes in the send buffer that the network has not accepted yet.
    """

    messages_sent: int
    messages_received: int
    bytes_held: int


@attrs.frozen(eq=False)
class SentTask:
    """A task that was sent. Made by `Connection._send_task`."""

    task_id: str
    device_id: str
    _requests: Requests = attrs.field(repr=False)
    _request: Request = attrs.field(repr=False)

    async def wait(self, accepted: Callable[[], None]) -> TaskResult:
        """Wait for the task's end; raises as `Connection.run_task` does. Cancelling loses nothing: you can wait again.

        Args:
            accepted: Called once, when the server has accepted the task.
        """
        end = await self._requests.receive_end(self._request, accepted)
        return TaskResult(self.task_id, self.device_id, end.status, end.result, end.error)

    @property
    def is_settled(self) -> bool:
        """Whether the task's acknowledgement and its end have arrived. The server then sends nothing more for it."""
        return self._request.acknowledged and self._request.answered

    def abandon(self) -> None:
        """Stop waiting for the task. Later messages about it are counted and dropped."""
        self._requests.abandon(self._request)


class Connection:
    """A registered connection to a server, for one device. Made by `open_connection`.

    Any number of tasks may use it concurrently. Every request ends in its reply, an error, or its caller's cancellation.
    """

    def __init__(
        self,
        link: Link[ServerMessage],
        router: Router,
        requests: Requests,
        identity: Identity,
        server_timestamp: str | None,
    ) -> None:
        self.server_timestamp = server_timestamp
        """The server's time when it confirmed the registration, as it sent it: ISO 8601, in UTC. None if it sent none."""
        self._link = link
        self._router = router
        self._requests = requests
        self._identity = identity

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Connection {self._identity.client_id!r} for device {self._identity.device_id!r}, {state}>"

    @property
    def device_id(self) -> str:
        """The device of this connection."""
        return self._identity.device_id

    @property
    def client_id(self) -> str:
        """The name under which this connection is registered with the server."""
        return self._identity.client_id

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, whichever side ended it. Requests raise from then on."""
        return self._link.closed

    @property
    def last_received(self) -> float:
        """The time of the last byte from the server, on trio's clock."""
        return self._link.last_received

    async def wait_closed(self) -> ConnectionLost | None:
        """Wait until the connection has ended.

        Returns:
            The reason of its loss; None if the block of `open_connection` has ended.
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
        """Whether bytes may have arrived that the receiver has not read yet. It reads them within a few scheduler passes."""
        return self._link.may_have_unread

    def is_free_for(self, task_id: str) -> bool:
        """Whether a task could use the connection exclusively.

        That is: the connection is open, nothing on it is pending, unanswered or unwritten, and no recent task on it had this id.
        """
        return self._link.is_idle and self._router.replies.is_free_for(self._requests.session_id(task_id))

    async def device_info(self, *, timeout: float = 10.0) -> DeviceInfo:
        """Ask the server what it knows about this device.

        Any number of tasks may call this concurrently. Cancelling is safe: nothing is left behind, and a late reply is counted and
        dropped.

        Args:
            timeout: Seconds to wait for the reply, counted from the send; `math.inf` for no limit.

        Raises:
            RequestTimeout: No reply arrived in time, or there was no room to send for as long.
            RequestRejected: The server refused or has no information; with its reason.
            InvalidMessage: The reply is invalid.
            QueueFull: Too many requests are pending; nothing was sent.
            ConnectionLost: The connection ended first.
            trio.ClosedResourceError: This side closed the connection.

        See "Device information" in docs/reference/wire.md.
        """
        return structure_device_info(await self._requests.device_info(timeout))

    async def run_task(
        self,
        request: str,
        *,
        timeout: float = 1000.0,
        task_id: str | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Run a task on the device, and wait for its end.

        ``await nursery.start(connection.run_task, "…")`` returns the task's id when the server has accepted the task.

        Cancelling or timing out abandons the task: **it continues on the device**, because AIP can stop it only by ending the connection.
        Nothing is left behind on this side, and later messages about the task are counted and dropped.

        Args:
            request: The task, in words.
            timeout: Seconds to wait for the end, counted from the send; `math.inf` for no limit.
            task_id: The task's name, used once, at most 64 characters; a fresh uuid if not given.
            task_status: Receives the task's id when the server has accepted the task.

        Returns:
            The result of the task, completed or failed: `TaskResult.unwrap` raises if it failed.

        Raises:
            RequestTimeout: The task did not end in time, or there was no room to send for as long.
            RequestRejected: The server refused the task, with its reason; it never ran.
            InvalidMessage: A reply is invalid, or the request contains characters that UTF-8 cannot encode.
            MessageTooLarge: The request is above the connection's limit; nothing was sent.
            QueueFull: Too many requests are pending; nothing was sent.
            ConnectionLost: The connection ended first; whether the task ran is unknown.
            trio.ClosedResourceError: This side closed the connection.
            ValueError: The `task_id` was used before, or is too long.

        See "Task" in docs/reference/wire.md.
        """
        sent = await self._send_task(request, timeout=timeout, task_id=task_id)
        try:
            with trio.move_on_after(timeout):
                return await sent.wait(partial(task_status.started, sent.task_id))
            raise RequestTimeout(f"task {sent.task_id!r} did not end on device {self.device_id!r} within {timeout:g} s")
        finally:
            sent.abandon()

    async def _send_task(self, request: str, *, timeout: float = 1000.0, task_id: str | None = None) -> SentTask:
        """Send the device a task without waiting for its end: the first half of `run_task`, for callers that must know when it is sent.

        Cancelling is safe: the task was not sent then. The caller must `SentTask.abandon` the returned task on every way out.

        Args:
            request: The task, in words.
            timeout: Seconds to wait for room to send it; `math.inf` for no limit.
            task_id: As for `run_task`.

        Raises:
            RequestTimeout: There was no room to send in time. Nothing was sent.
            Exception: As for `run_task`. Nothing was sent in any of these cases.
        """
        task_id = str(uuid.uuid4()) if task_id is None else check_task_id(task_id)
        sent = await self._requests.send_task(task_id, request, timeout)
        return SentTask(task_id, self._identity.device_id, self._requests, sent)

    def subscribe(self, backlog: int = BACKLOG) -> AbstractContextManager[EventStream[Event]]:
        """Subscribe to the connection's events, from now until it ends.

        ``with connection.subscribe() as events: async for event in events: …``

        Args:
            backlog: The number of events that may wait for this subscriber. If it lags further, it loses the oldest and receives
                `EventsLost`.
        """
        return self._router.events.subscribe(backlog)

    def statistics(self) -> ConnectionStatistics:
        """Return the connection's counters and current values."""
        return ConnectionStatistics(
            **attrs.asdict(self._router.replies.statistics()),
            messages_sent=self._link.messages_sent,
            messages_received=self._link.messages_received,
            bytes_held=self._link.bytes_held,
        )


_CAPABILITIES: Final = ("task_distribution", "session_management", "device_coordination")
_VERSION: Final = "2.0"


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
    options: ConnectionOptions | None = None,
    max_pending: int = MAX_PENDING,
    on_event: Callable[[Event], None] | None = None,
) -> AsyncGenerator[Connection]:
    """Connect to a server as a constellation, for one device, for the length of the block.

    The block begins when the server has confirmed the registration. It continues when the connection is lost: requests raise from then
    on, and `Connection.wait_closed` returns the reason. An exception of the block is raised as the same object. Leaving the block closes
    gracefully, within 3 s. Cancelling it closes the socket immediately, and the server stops this connection's tasks.

    Args:
        url: ``ws://HOST[:PORT][/PATH]`` or ``wss://…``; without a path, ``/ws``.
        device_id: The device to run tasks on. It must be connected to the server.
        client_name: Names this program's sessions and tasks; at most 64 characters.
        client_id: The name to register under, unique on the server; ``{client_name}-{6 hex digits}@{device_id}`` if not given.
        token: The server's API key. It is never shown.
        headers: Sent with the handshake, as pairs of name and value.
        ssl_context: For ``wss``, instead of the default, which verifies the server's certificate and name.
        stream: Used instead of TCP, and closed at the end: for example a Unix socket's. See `ConnectionOptions.proxy`.
        options: Timeouts and limits; see `ConnectionOptions` for the defaults.
        max_pending: The limit of pending requests; one more raises `QueueFull`.
        on_event: Called with each event of this connection in the step in which it happens, also before the block begins. It must
            neither block nor raise.

    Raises:
        ConfigError: An argument cannot be used: the URL, a header, a limit.
        ConnectFailed: Connecting failed; see its subclasses `ConnectTimeout`, `HandshakeRejected`, `RegistrationRejected`.

    See "Registration" in docs/reference/wire.md.
    """
    async with owning(stream):
        check_name("device_id", device_id, MAX_ID)
        check_client_name(client_name)
        if client_id is not None:
            check_name("client_id", client_id, MAX_ID)
        check_positive(max_pending=max_pending)
        options = options or ConnectionOptions()
        identity = Identity(client_id or f"{client_name}-{secrets.token_hex(3)}@{device_id}", device_id, client_name)
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
            options=options,
        ) as link:
            router.events.publish(ConnectionOpened(device_id))
            requests = Requests(link, router.replies, identity)
            metadata: dict[str, JSON] = {
                "type": "constellation_client",
                "task_name": client_name,
                "targeted_device_id": device_id,
                "capabilities": list(_CAPABILITIES),
                "version": _VERSION,
            }
            server_timestamp = await register(link, requests, metadata, options)
            yield Connection(link, router, requests, identity, server_timestamp)
