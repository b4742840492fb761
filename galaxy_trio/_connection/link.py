"""One connection in any role.

A link owns a nursery, one receiver task, liveness checks and two-phase sending, and reports its end to every waiter. It knows AIP's
messages but no role: it passes them to a `Receiver`, which must not block.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from galaxy_trio._concurrency.background import contains_cancelled, raise_outcome, split_cancelled
from galaxy_trio._connection import liveness
from galaxy_trio._connection.inbound import Inbound
from galaxy_trio._transport.interface import TransportEnded, WebSocket
from galaxy_trio.errors import ConnectionLost, ConnectTimeout
from galaxy_trio.messages import ClientMessage, ServerMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio._connection.inbound import Decoder
    from galaxy_trio._connection.receiver import Receiver

logger: Final = logging.getLogger(__name__)

_TRY_AGAIN_LATER: Final = 1013
_OUT_OF_MEMORY: Final = "all connections together hold too much memory, and this one the most"
CLOSE_TIMEOUT: Final = 3.0
"""Seconds that flushing the send buffer and the close handshake share."""

In = TypeVar("In")
T = TypeVar("T")
Sendable: TypeAlias = ClientMessage | ServerMessage | str
"""A message, or its text."""


class Handshake(Protocol):
    """Opens a WebSocket, reports that it is open, and reads until it ends."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the WebSocket."""


class Link(Generic[In]):
    """One connection of either direction. It lives inside the block of `running`.

    Args:
        transport: A WebSocket that is not open yet. The link owns it and closes it on every way out of `running`.
        receiver: Takes the incoming messages.
        encode: Makes the text of a message, or raises `InvalidMessage`.
        decode: Makes a message from a frame, or raises `InvalidMessage`.
        max_values: The number of values and keys that a message from the peer may have.
        peer: The name of the other end, for error messages.
        close_timeout: Seconds that closing may take.
        pause_reading: Read no further message while the send buffer is full. If each message is answered in the step in which it
            arrives, this bounds the memory that a peer can occupy by not reading.
    """

    def __init__(
        self,
        transport: WebSocket,
        receiver: Receiver[In],
        encode: Callable[[ClientMessage | ServerMessage], str],
        decode: Decoder[In],
        *,
        peer: str,
        max_values: int,
        close_timeout: float = CLOSE_TIMEOUT,
        pause_reading: bool = False,
    ) -> None:
        self._transport = transport
        self._receiver = receiver
        self._encode = encode
        self._inbound = Inbound(transport, receiver, decode, peer=peer, max_values=max_values, pause=pause_reading)
        self.peer = peer
        """The name of the other end, for error messages."""
        self._nursery: trio.Nursery | None = None
        self._close_timeout = close_timeout
        self.close_code = 1000
        """The WebSocket code to close with."""
        self._crashes: list[BaseException] = []
        self._scope = trio.CancelScope()
        self._aborted = False
        self._closing = False
        self._ended = trio.Event()
        self.closed: bool = False
        """Whether the connection has ended, whichever side ended it."""
        self._lost: Callable[[], ConnectionLost] | None = None
        self.messages_sent: int = 0

    @property
    def memory(self) -> MemoryShare:
        """The connection's share of the memory budget."""
        return self._transport.memory

    @property
    def messages_received(self) -> int:
        """The number of messages from the peer."""
        return self._inbound.messages_received

    @property
    def last_received(self) -> float:
        """The time of the last byte from the peer, on trio's clock."""
        return self._transport.last_received

    async def wait_closed(self) -> ConnectionLost | None:
        """Wait until the connection has ended.

        Returns:
            The reason of its loss; None if this side closed it.
        """
        await self._ended.wait()
        return None if self._lost is None else self._lost()

    def abort(self) -> None:
        """Leave the block immediately, without a close handshake, because opening failed."""
        self._aborted = True

    def lose(self, reason: str, code: int = 1006, cause: BaseException | None = None) -> None:
        """Report the loss of the connection to every waiter, in this step. Only the first reason counts."""

        def error() -> ConnectionLost:
            lost = ConnectionLost(f"the connection to {self.peer} was lost: {reason}", reason=reason, code=code)
            lost.__cause__ = cause
            return lost

        if not self.closed:
            logger.info("connection to %s ended: %s", self.peer, reason)
            self._lost = error
            self._end(error)

    def _end(self, error: Callable[[], Exception]) -> None:
        if not self.closed:
            self.closed = True
            self._inbound.stopped = True
            self._ended.set()
            self._receiver.ended(error)

    def _closed_error(self) -> Exception:
        return trio.ClosedResourceError(f"the connection to {self.peer} was closed by this side")

    def _current_error(self) -> Exception:
        return self._closed_error() if self._lost is None else self._lost()

    async def send(self, message: Sendable, hand_over: Callable[[], T]) -> T:
        """Send a message in two phases.

        First wait for room in the send buffer, which is cancellable and sends nothing. Then, without a checkpoint between, call
        `hand_over` and send the whole message. After cancelling, the message is therefore either unsent or sent whole.

        Args:
            message: The message, or its text.
            hand_over: Called in the step that sends the message; if it raises, nothing is sent.

        Raises:
            InvalidMessage: The message contains a value that JSON cannot express.
            MessageTooLarge: The message is above the limit.
            ConnectionLost: The connection ended first.
            trio.ClosedResourceError: This side closed the connection.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._transport.has_room:
            # Refuse an unsendable message before the wait. Its text is not kept: a waiting sender holds no second copy.
            size = len(self._text(message))
            with self.memory.holding(size):
                await self._transport.wait_for_room()
        return self.send_if_open(message, hand_over)

    def send_if_open(self, message: Sendable, hand_over: Callable[[], T], *, gather: bool = False) -> T:
        """Do the second phase of `send`, for callers that know of room. `gather` is passed to `WebSocket.send_nowait`."""
        text = self._text(message)
        if self.closed:
            raise self._current_error()
        result = hand_over()
        self._transport.send_nowait(text, gather=gather)
        self.messages_sent += 1
        logger.debug("to %s: %s characters", self.peer, len(text))
        return result

    def send_nowait(self, message: ClientMessage | ServerMessage) -> None:
        """Send a small reply to an incoming message, however full the send buffer is. After the end it is dropped."""
        if not self.closed:
            self.send_if_open(message, lambda: None)

    def _text(self, message: Sendable) -> str:
        text = message if isinstance(message, str) else self._encode(message)
        self._transport.check_size(text)
        return text

    def limit_received(self, size: int, max_values: int) -> None:
        """Change the limits of received messages to `size` bytes and `max_values` values and keys, for messages that have not begun."""
        self._transport.limit_received(size)
        self._inbound.max_values = max_values

    @property
    def has_room(self) -> bool:
        """Whether a message can be sent now, without waiting."""
        return self._transport.has_room

    @property
    def may_have_unread(self) -> bool:
        """Whether bytes may have arrived that were not read yet."""
        return self._transport.may_have_unread

    @property
    def is_idle(self) -> bool:
        """Whether the connection is open, everything is written, and no end of it has arrived, not even an unreported one."""
        return not self.closed and self._transport.is_idle

    async def is_alive(self, timeout: float) -> bool:
        """Ping the peer, and return whether any byte arrives from it within `timeout` seconds."""
        self._transport.ping_nowait()
        with trio.move_on_after(timeout):
            return await self._transport.wait_received() and not self.closed
        return False

    async def stays_silent(self, timeout: float) -> bool:
        """Ping the peer, and return whether no byte arrives from it; see `liveness.stays_silent`."""
        return await liveness.stays_silent(self._transport, timeout)

    def pause_until(self, event: trio.Event) -> None:
        """Deliver no further message until an event: they wait in the socket. The peer's close is not noticed either, so keep it short."""
        self._inbound.pause_until(event)

    @property
    def bytes_held(self) -> int:
        """Bytes in the send buffer that are not written yet."""
        return self._transport.bytes_held

    def start_soon(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run a background task until the link ends. A bug in it ends the link and is raised from the block."""
        if self._nursery is None:
            raise RuntimeError("a link has background tasks only while it runs")
        self._nursery.start_soon(self._supervise, work)

    def _close_for_memory(self) -> None:
        self._transport.send_close_nowait(_TRY_AGAIN_LATER, _OUT_OF_MEMORY)
        self.lose(_OUT_OF_MEMORY, _TRY_AGAIN_LATER)
        self.start_soon(self._transport.abort)

    def start_heartbeats(self, interval: float, beat: Callable[[], Awaitable[object]]) -> None:
        """Call `beat` every `interval` seconds until the connection ends."""

        async def heartbeats() -> None:
            while True:
                await trio.sleep(interval)
                try:
                    await beat()
                except (ConnectionLost, trio.ClosedResourceError):
                    return

        self.start_soon(heartbeats)

    async def _supervise(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except BaseException as error:  # noqa: BLE001  # stored, and raised when the link has ended
            self._crashed(error)

    async def _run_websocket(self, handshake: Handshake, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await handshake(task_status=task_status)
        except BaseException as error:
            if not self._transport.is_open:
                raise
            self._crashed(error)

    def _crashed(self, error: BaseException) -> None:
        cancelled, bug = split_cancelled(error)
        if bug is not None:
            self._crashes.append(bug)
            self.lose(f"a background task crashed: {type(bug).__name__}: {bug}", 1011, bug)
            self._scope.cancel()
        if cancelled is not None:
            raise cancelled

    async def _receive_all(self) -> None:
        """Receive, as the connection's only receiver task. Its end is the connection's end."""
        try:
            await self._inbound.run()
        except TransportEnded as ended:
            self.lose(ended.reason, ended.code, ended.cause)
        except trio.Cancelled:
            self._end(self._closed_error)
            raise
        except BaseException as error:
            self.lose(f"the receiver crashed: {type(error).__name__}: {error}", 1011, error)
            raise
        finally:
            if not self._closing:
                await self._transport.abort()

    async def _ping(self, interval: float) -> None:
        while True:
            await trio.sleep(interval)
            self._transport.ping_nowait()

    async def _watch_liveness(self, timeout: float) -> None:
        """End the connection when the peer has vanished; see `liveness.wait_vanished`."""
        self.lose(await liveness.wait_vanished(self._transport, timeout))
        await self._transport.abort()

    async def _watch_sending(self, timeout: float) -> None:
        """End the connection when the peer has read nothing for `timeout` seconds, to free the send buffer."""
        await self._transport.wait_stuck(timeout)
        self.lose(f"it has not read what was sent to it for {timeout:g} s")
        await self._transport.abort()

    async def _close(self, failure: BaseException | None) -> BaseException | None:
        """Close with a handshake if there is a peer to close with, otherwise immediately.

        Returns:
            The exception of the block, or of closing.
        """
        gracefully = not (self.closed or self._aborted or contains_cancelled(failure))
        self._closing = True
        if not self.closed and self._transport.is_open:
            logger.info("closing the connection to %s%s", self.peer, "" if gracefully else " immediately")
        self._end(self._closed_error)
        try:
            if gracefully:
                with trio.move_on_after(self._close_timeout):
                    await self._transport.aclose(self.close_code)
        except BaseException as error:  # noqa: BLE001  # raised when the nursery has ended
            failure = error if failure is None or isinstance(error, KeyboardInterrupt) else failure
        try:
            await self._transport.abort()
        finally:
            # While the nursery is open: a shortage starts a task in it.
            self.memory.close()
        return failure

    @asynccontextmanager
    async def running(
        self,
        handshake: Handshake,
        *,
        handshake_deadline: float,
        liveness_timeout: float,
        ping_interval: float | None = None,
        send_timeout: float | None = None,
    ) -> AsyncGenerator[None]:
        """Run the connection for the length of the block, and close it on every way out.

        An exception of the block is raised as the same object. The loss of the connection does not end the block. A bug in a
        background task ends it and is raised too. Leaving the block closes gracefully, within the close timeout; cancelling it closes
        immediately.

        Args:
            handshake: `WebSocket.run_client` or `WebSocket.run_server`, with its arguments.
            handshake_deadline: The time by which the handshake must be done, on trio's clock.
            liveness_timeout: Seconds without a single byte from the peer after which the connection is lost.
            ping_interval: Seconds between WebSocket pings, for peers that would otherwise be silent; None for no pings.
            send_timeout: Seconds for which the send buffer may stay above its high-water mark before the connection is lost; None for
                no limit while the peer lives.

        Raises:
            ConnectFailed: The handshake failed.
        """
        failure: BaseException | None = None
        stray: BaseException | None = None
        self.memory.on_shortage = self._close_for_memory
        try:
            async with trio.open_nursery() as self._nursery:
                # Caught inside the nursery, which would wrap the block's exception in a group.
                try:
                    with self._scope:
                        self.start_soon(self._transport.run_writer)
                        with trio.move_on_at(handshake_deadline) as shaking_hands:
                            await self._nursery.start(self._run_websocket, handshake)
                        if shaking_hands.cancelled_caught:
                            raise ConnectTimeout(f"no WebSocket handshake with {self.peer} in time")
                        logger.info("connected to %s", self.peer)
                        self.start_soon(self._receive_all)
                        self.start_soon(partial(self._watch_liveness, liveness_timeout))
                        if ping_interval is not None:
                            self.start_soon(partial(self._ping, ping_interval))
                        if send_timeout is not None:
                            self.start_soon(partial(self._watch_sending, send_timeout))
                        yield
                except BaseException as error:  # noqa: BLE001  # raised below, as the same object
                    failure = error
                failure = await self._close(failure)
                self._nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            stray = group
        try:
            raise_outcome(failure, self._crashes, stray)
        finally:
            del failure, stray
