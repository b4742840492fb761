"""A device that stays registered with a server, and runs tools for it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from galaxy_trio._arguments import MAX_ID, MAX_MESSAGE_SIZE, check_name, check_positive
from galaxy_trio._codec.codec import encode_value, unstructure_device_info
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.background import open_background, raise_outcome
from galaxy_trio._connection.backoff import FIRST, Backoff
from galaxy_trio._connection.client_link import open_given_stream, read_token
from galaxy_trio.agent.command_queue import MAX_QUEUED_BATCHES, Batches, Counts
from galaxy_trio.agent.command_runner import Toolbox
from galaxy_trio.agent.connection import DeviceConnection, open_device_connection
from galaxy_trio.agent.outbox import Outbox
from galaxy_trio.agent.system_info import collect_system_info
from galaxy_trio.agent.thread_limiter import ToolThreads
from galaxy_trio.agent.tools import MAX_THREADS, make_tools
from galaxy_trio.errors import (
    ConfigError,
    ConnectionLost,
    GalaxyError,
    InvalidMessage,
)
from galaxy_trio.messages import (
    ClientMessage,
    ClientMessageType,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from galaxy_trio.agent.tools import Tool, ToolSource
    from galaxy_trio.messages import DeviceInfo

    Connect = Callable[[], Awaitable[trio.abc.Stream]]
    # Opens one connection: the agent's own way, with the system information of now.
    _Open = Callable[[Callable[[ServerMessage], None]], AbstractAsyncContextManager[DeviceConnection]]

logger: Final = logging.getLogger(__name__)


@attrs.frozen
class AgentStatistics:
    """Counts since the agent began, but for the last three and `registered`, which are of now.

    Attributes:
        registered: Whether the server knows the device now.
        registrations: How often it was registered.
        batches: Batches of commands that came.
        commands: Commands that have a result, the skipped and the refused among them.
        failures: Those that failed.
        skipped: Those that were skipped because one before them failed.
        queued_batches: Batches that wait.
        threads_running: Threads of tools that run, the abandoned ones among them.
        threads_abandoned: Threads that run on after their command's time was up, or its task or connection had ended.
    """

    registered: bool
    registrations: int
    batches: int
    commands: int
    failures: int
    skipped: int
    queued_batches: int
    threads_running: int
    threads_abandoned: int


class Agent:
    """A device that stays registered. Made by `open_agent`."""

    def __init__(
        self,
        device_id: str,
        open_connection: _Open,
        make_batches: Callable[[Outbox, Counts], Batches],
        threads: ToolThreads,
        backoff: Backoff,
    ) -> None:
        self._device_id = device_id
        self._open_connection = open_connection
        self._make_batches = make_batches
        self._threads = threads
        self._backoff = backoff
        self._counts = Counts()
        self._registrations = 0
        self._connection: DeviceConnection | None = None
        self._outbox = Outbox()
        self._batches = make_batches(self._outbox, self._counts)
        self._now_registered = trio.Event()
        self._trying = trio.CancelScope()
        self._staying: trio.CancelScope | None = None
        self._leaving = False
        self._ended = False

    def __repr__(self) -> str:
        return f"<Agent {self._device_id!r}{'' if self.registered else ', not registered'}>"

    @property
    def device_id(self) -> str:
        """The name that the device is registered under."""
        return self._device_id

    @property
    def registered(self) -> bool:
        """Whether the server knows the device now."""
        return self._connection is not None and not self._connection.closed

    async def wait_registered(self) -> None:
        """Wait until the server knows the device: at once, or after it was lost and has been found again.

        Raises:
            trio.ClosedResourceError: The block of `open_agent` has ended.
        """
        await trio.lowlevel.checkpoint()
        while not self.registered:
            if self._ended:
                raise trio.ClosedResourceError(f"the agent {self._device_id!r} was closed")
            await self._now_registered.wait()

    def statistics(self) -> AgentStatistics:
        """What the agent has done so far, and does now."""
        return AgentStatistics(
            registered=self.registered,
            registrations=self._registrations,
            **attrs.asdict(self._counts),
            queued_batches=self._batches.queued,
            threads_running=self._threads.running,
            threads_abandoned=self._threads.abandoned,
        )

    # ---- its task

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Register, and stay registered, until `leave`.

        Raises:
            GalaxyError: What stands in the way of it, and will go on to do so.
        """
        try:
            with self._trying:
                while not await self._stay_once(task_status):
                    pass
        finally:
            self._ended = True
            self._now_registered.set()

    def _leave(self) -> None:
        """Come to an end: in good order if there is a connection, and at once if there is none."""
        self._leaving = True
        (self._staying or self._trying).cancel()

    async def _stay_once(self, task_status: trio.TaskStatus[None]) -> bool:
        """Connect, stay until the connection ends, wait for the time of the next. True when it is over."""
        began = 0.0
        lost: ConnectionLost | None = None
        try:
            async with self._open_connection(self._received) as connection:
                began = trio.current_time()
                lost = await self._stay(connection, task_status)
        except GalaxyError as error:
            wait = self._backoff.failed(error, now=trio.current_time())
            self._log("is not registered", error, wait)
        else:
            if lost is None or self._leaving:
                return True
            now = trio.current_time()
            wait = self._backoff.lost(now - began, lost, now=now)
            self._log("is registered no more", lost, wait)
        finally:
            # What waits belongs to this connection; it may have come before the registration was confirmed, or refused.
            self._outbox = Outbox()
            self._batches = self._make_batches(self._outbox, self._counts)
        await trio.sleep(wait)
        return False

    async def _stay(self, connection: DeviceConnection, task_status: trio.TaskStatus[None]) -> ConnectionLost | None:
        lost: ConnectionLost | None = None
        self._connection = connection
        self._registrations += 1
        self._now_registered.set()
        if self._registrations == 1:
            task_status.started()
        try:
            async with open_background() as nursery:
                nursery.start_soon(self._batches.run, connection)
                nursery.start_soon(self._outbox.run, connection)
                with trio.CancelScope() as self._staying:
                    lost = await connection.wait_closed()
        finally:
            self._staying = self._connection = None
            self._now_registered = trio.Event()
        return lost

    def _log(self, what: str, why: Exception, wait: float) -> None:
        level = logging.WARNING if self._backoff.needs_attention else logging.INFO
        logger.log(level, "device %r %s: %s; trying again in %.1f s", self._device_id, what, why, wait)

    # ---- what comes

    def _received(self, message: ServerMessage) -> None:
        match message.type:
            case ServerMessageType.COMMAND:
                self._batches.put(message)
            case ServerMessageType.TASK_END if message.session_id is not None:
                self._batches.end_session(message.session_id)
            case ServerMessageType.TASK:
                self._outbox.put([self._own(message)])
            case _:
                logger.debug("a %s that says nothing to a device", message.type.value)

    def _own(self, task: ServerMessage) -> ClientMessage:
        """A task that the server dispatches to this device, as its own. See "Task dispatched to a device" in docs/reference/wire.md."""
        return ClientMessage(
            ClientMessageType.TASK,
            TaskStatus.CONTINUE,
            session_id=task.session_id,
            task_name=task.task_name,
            client_id=self._device_id,
            target_id=self._device_id,
            request=task.user_request,
            timestamp=wall_clock.timestamp(),
        )


@asynccontextmanager
async def open_agent(
    url: str,
    device_id: str,
    tools: Iterable[Tool | Callable[..., Any]] = (),  # Any: whatever a plain function returns
    *,
    tool_sources: Iterable[ToolSource] = (),
    token: str | Callable[[], str | None] | None = None,
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    system_info: DeviceInfo | None = None,
    connect: Connect | None = None,
    connect_timeout: float = 60.0,
    register_timeout: float = 30.0,
    heartbeat_interval: float = 30.0,
    liveness_timeout: float = 180.0,
    max_message_size: int = MAX_MESSAGE_SIZE,
    reconnect_delay: float = FIRST,
    max_retries: int | None = None,
    max_threads: int = MAX_THREADS,
    max_queued_batches: int = MAX_QUEUED_BATCHES,
    random: Random | None = None,
) -> AsyncGenerator[Agent]:
    """Be a device of a server, for the length of the block: registered, and running tools when the server says so.

    The block begins when the device is registered. A failure to connect and a loss are followed by another try, for ever unless
    `max_retries` is given; see "Reconnecting" in docs/reference/wire.md. What no trying can mend is raised, and cancels the block.

    The commands of a batch run in order, one batch at a time. When their task or the connection ends, running async tools are
    cancelled, and threads are left to their end. What a tool does wrong fails its command and nothing else.

    What the block raises comes out as it is. Its end closes in good order, within 3 s; cancelling it closes at once.

    Args:
        url: Where the server is.
        device_id: The name to register under.
        tools: Functions, sync or async, what `tool` makes of them, or any `Tool`.
        tool_sources: Where tools come from that come and go; asked for each command that none of `tools` is named by.
        token: The server's API key, or a function that says what it is now: called in a thread before each try, so that it can be
            replaced meanwhile; a `ConfigError` of it is tried again. It is never shown.
        headers: Sent with each handshake.
        ssl_context: For ``wss``, in place of the default.
        system_info: What the server is told about this machine; collected anew at each registration if not given.
        connect: Opens the stream for each try, in place of TCP: a proxy's, a test's.
        connect_timeout: Seconds for `connect`, and again for DNS, TCP, TLS and the WebSocket handshake.
        register_timeout: Seconds for the server to confirm a registration.
        heartbeat_interval: Seconds between heartbeats.
        liveness_timeout: Seconds without a single byte from the server after which the connection is lost.
        max_message_size: Bytes that a message may have, both ways.
        reconnect_delay: Seconds that the first wait before another try lasts at most; doubled up to 60,
            in the first 30 s of an outage up to 4.
        max_retries: How many failures in a row are followed by another try; None for no limit.
        max_threads: How many tools that are not async may run at a time, those that nobody waits for any more among them.
        max_queued_batches: How many batches may wait; the commands of one more fail at once.
        random: Where the jitter of the waits comes from.

    Raises:
        ConfigError: What was asked for cannot be right.
        ConnectFailed: The server's certificate is not accepted, or the retries are used up.
        ConnectionLost: The retries are used up, and this was the last failure.
    """
    check_name("device_id", device_id, MAX_ID)
    check_positive(connect_timeout=connect_timeout, max_threads=max_threads, max_queued_batches=max_queued_batches)
    if system_info is not None:
        _check_system_info(system_info)
    headers = tuple(headers)
    threads = ToolThreads(max_threads)
    toolbox = Toolbox(make_tools(tools), tool_sources, threads, max_message_size)

    @asynccontextmanager
    async def open_one(
        hand_on: Callable[[ServerMessage], None],
    ) -> AsyncGenerator[DeviceConnection]:
        info = await collect_system_info(device_id) if system_info is None else system_info
        current_token = await read_token(token, connect_timeout) if callable(token) else token
        # Last: nobody closes it before it is handed over.
        stream = None if connect is None else await open_given_stream(connect, connect_timeout)
        async with open_device_connection(
            url,
            device_id,
            system_info=info,
            token=current_token,
            headers=headers,
            ssl_context=ssl_context,
            stream=stream,
            connect_timeout=connect_timeout,
            register_timeout=register_timeout,
            heartbeat_interval=heartbeat_interval,
            liveness_timeout=liveness_timeout,
            max_message_size=max_message_size,
            hand_on=hand_on,
        ) as connection:
            yield connection

    def make_batches(outbox: Outbox, counts: Counts) -> Batches:
        return Batches(
            device_id, toolbox, outbox, counts, max_queued=max_queued_batches, max_message_size=max_message_size
        )

    backoff = Backoff(first=reconnect_delay, max_retries=max_retries, random=random)
    agent = Agent(device_id, open_one, make_batches, threads, backoff)
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(agent._run)  # noqa: SLF001  # its own module
                yield agent
            except BaseException as error:  # raised below, as the same object
                if nursery.cancel_scope.cancel_called:
                    # The agent gave up, and the nursery has cancelled the block: it knows its own.
                    raise
                failure = error
            agent._leave()  # noqa: SLF001
    except BaseExceptionGroup as group:
        stray = group
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray


def _check_system_info(system_info: DeviceInfo) -> None:
    try:
        encode_value(unstructure_device_info(system_info))
    except InvalidMessage as invalid:
        raise ConfigError(f"the system_info cannot be sent: {invalid}") from None
