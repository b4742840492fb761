"""An agent: a device that stays registered with a server."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from galaxy_trio._arguments import MAX_ID, check_name, check_positive
from galaxy_trio._codec.codec import encode_value, unstructure_device_info
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.background import open_background, raise_outcome
from galaxy_trio._connection.backoff import FIRST, Backoff
from galaxy_trio._connection.client_link import open_given_stream, read_token
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio.agent.command_queue import MAX_QUEUED_BATCHES, CommandCounts, CommandQueue
from galaxy_trio.agent.command_runner import CommandRunner
from galaxy_trio.agent.connection import DeviceConnection, connect_device
from galaxy_trio.agent.list_tools import index_with_list_tools
from galaxy_trio.agent.outbox import Outbox
from galaxy_trio.agent.system_info import collect_system_info
from galaxy_trio.agent.thread_limiter import ThreadLimiter
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

    from galaxy_trio._concurrency.memory_budget import MemoryBudget, MemoryShare
    from galaxy_trio.agent.tool_index import ToolIndex
    from galaxy_trio.agent.tools import Tool, ToolSource
    from galaxy_trio.messages import DeviceInfo

    Connect = Callable[[], Awaitable[trio.abc.Stream]]
    # Opens one connection, with fresh system information.
    _Open = Callable[
        [Callable[[ServerMessage, MemoryShare], None], Callable[[InvalidMessage], None]],
        AbstractAsyncContextManager[DeviceConnection],
    ]

logger: Final = logging.getLogger(__name__)


@attrs.frozen
class AgentStatistics:
    """Counts since the agent started; `registered` and the last four fields are current values.

    Attributes:
        registered: Whether the device is registered now.
        registrations: Registrations of the device.
        batches: Batches of commands received.
        commands: Commands that have a result, including skipped and refused ones.
        failures: Commands that failed.
        skipped: Commands that were skipped because an earlier one of their batch failed.
        queued_batches: Batches in the queue.
        threads_running: Tool threads that are running, including abandoned ones.
        threads_abandoned: Tool threads that are still running although their command timed out, or its task or connection ended.
        memory_held: Bytes that count towards the memory budget.
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
    memory_held: int


class Agent:
    """A device that stays registered. Made by `open_agent`."""

    def __init__(
        self,
        device_id: str,
        open_connection: _Open,
        make_queue: Callable[[Outbox, CommandCounts], CommandQueue],
        tools: ToolIndex,
        threads: ThreadLimiter,
        backoff: Backoff,
        memory: MemoryBudget,
    ) -> None:
        self._device_id = device_id
        self._open_connection = open_connection
        self._make_queue = make_queue
        self._tools = tools
        self._threads = threads
        self._backoff = backoff
        self._memory = memory
        self._counts = CommandCounts()
        self._registrations = 0
        self._connection: DeviceConnection | None = None
        self._outbox = Outbox()
        self._queue = make_queue(self._outbox, self._counts)
        self._registration_waiters = trio.lowlevel.ParkingLot()
        self._run_scope = trio.CancelScope()
        self._registered_scope: trio.CancelScope | None = None
        self._leaving = False
        self._ended = False

    def __repr__(self) -> str:
        return f"<Agent {self._device_id!r}{'' if self.registered else ', not registered'}>"

    @property
    def device_id(self) -> str:
        """The name that the device is registered under."""
        return self._device_id

    @property
    def tool_names(self) -> list[str]:
        """The names by which commands call the device's tools now; ``list_tools``, which every device has, comes first."""
        return list(self._tools.current())

    @property
    def registered(self) -> bool:
        """Whether the device is registered now."""
        return self._connection is not None and not self._connection.closed

    async def wait_registered(self) -> None:
        """Wait until the device is registered; returns immediately if it is. Cancelling is safe.

        Raises:
            trio.ClosedResourceError: The block of `open_agent` has ended.
        """
        await trio.lowlevel.checkpoint()
        while not self.registered:
            if self._ended:
                raise trio.ClosedResourceError(f"the agent {self._device_id!r} was closed")
            await self._registration_waiters.park()

    def statistics(self) -> AgentStatistics:
        """Return a snapshot of the agent's counts."""
        return AgentStatistics(
            registered=self.registered,
            registrations=self._registrations,
            **attrs.asdict(self._counts),
            queued_batches=self._queue.queued,
            threads_running=self._threads.running,
            threads_abandoned=self._threads.abandoned,
            memory_held=self._memory.held,
        )

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Stay registered until `_leave`.

        Raises:
            GalaxyError: Retrying does not help, or the retries are used up.
        """
        try:
            with self._run_scope:
                while not await self._connect_once(task_status):
                    pass
        finally:
            self._ended = True
            self._registration_waiters.unpark_all()

    def _leave(self) -> None:
        """Stop: with a close handshake if there is a connection, immediately otherwise."""
        self._leaving = True
        (self._registered_scope or self._run_scope).cancel()

    async def _connect_once(self, task_status: trio.TaskStatus[None]) -> bool:
        """Connect, stay registered until the connection ends, then wait before the next try. Returns whether the agent is done."""
        began = 0.0
        lost: ConnectionLost | None = None
        try:
            async with self._open_connection(self._received, self._received_broken) as connection:
                began = trio.current_time()
                lost = await self._serve(connection, task_status)
        except GalaxyError as error:
            wait = self._backoff.failed(error, now=trio.current_time())
            self._log("could not register", error, wait)
        else:
            if lost is None or self._leaving:
                return True
            now = trio.current_time()
            wait = self._backoff.lost(now - began, lost, now=now)
            self._log("lost its connection", lost, wait)
        finally:
            # Queued commands belong to this connection; some may have arrived before its registration was confirmed or refused.
            self._outbox = Outbox()
            self._queue = self._make_queue(self._outbox, self._counts)
        await trio.sleep(wait)
        return False

    async def _serve(self, connection: DeviceConnection, task_status: trio.TaskStatus[None]) -> ConnectionLost | None:
        lost: ConnectionLost | None = None
        self._connection = connection
        self._registrations += 1
        self._registration_waiters.unpark_all()
        if self._registrations == 1:
            task_status.started()
        try:
            async with open_background() as nursery:
                nursery.start_soon(self._queue.run, connection)
                nursery.start_soon(self._outbox.run, connection)
                with trio.CancelScope() as self._registered_scope:
                    lost = await connection.wait_closed()
        finally:
            self._registered_scope = self._connection = None
        return lost

    def _log(self, what: str, why: Exception, wait: float) -> None:
        level = logging.WARNING if self._backoff.needs_attention else logging.INFO
        logger.log(level, "device %r %s: %s; trying again in %.1f s", self._device_id, what, why, wait)

    def _received(self, message: ServerMessage, memory: MemoryShare) -> None:
        match message.type:
            case ServerMessageType.COMMAND:
                self._queue.put(message, memory)
            case ServerMessageType.TASK_END if message.session_id is not None:
                self._queue.end_session(message.session_id)
            case ServerMessageType.TASK:
                self._outbox.put([self._submission_of(message)], memory)
            case _:
                logger.debug("ignored a message of type %s", message.type.value)

    def _received_broken(self, broken: InvalidMessage) -> None:
        self._queue.refuse(broken)

    def _submission_of(self, task: ServerMessage) -> ClientMessage:
        """The message that submits a dispatched task as the device's own. See "Task dispatched to a device" in docs/reference/wire.md."""
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
    tools: Iterable[Tool | Callable[..., Any]] = (),  # Any: a plain function may return anything
    *,
    tool_sources: Iterable[ToolSource] = (),
    token: str | Callable[[], str | None] | None = None,
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    system_info: DeviceInfo | None = None,
    connect: Connect | None = None,
    options: ConnectionOptions | None = None,
    reconnect_delay: float = FIRST,
    max_retries: int | None = None,
    max_threads: int = MAX_THREADS,
    max_queued_batches: int = MAX_QUEUED_BATCHES,
    random: Random | None = None,
) -> AsyncGenerator[Agent]:
    """Register with a server as a device and run tools on its command, until the block ends.

    The block is entered once the device is registered. After a failed connect or a lost connection the agent retries, forever unless
    `max_retries` is given; see "Reconnecting" in docs/reference/wire.md. An error that retrying cannot fix cancels the block and is
    raised.

    The commands of a batch run in order, one batch at a time. When their task or the connection ends, running async tools are
    cancelled and threads run to their end. An error in a tool fails its command; the rest of its batch is skipped, unless the server
    asks to go on.

    Every agent answers the command ``list_tools`` with the names, descriptions and schemas of its tools. Of several tools with the same
    name, the first one has it, and the others are called as ``namespace.name``.

    An exception raised in the block comes out as the same object. Leaving the block closes the connection with a close handshake,
    within 3 s; cancelling closes it immediately.

    Args:
        url: The server's URL.
        device_id: The name to register under.
        tools: Sync or async functions, results of `tool`, or any `Tool`.
        tool_sources: Sources of tools that come and go; searched for each command that names none of `tools`.
        token: The server's API key, or a function that returns the current one. The function is called in a thread before each try,
            so a replaced token is used at the next try; if it raises `ConfigError`, the agent retries. A token is never shown.
        headers: Sent with each handshake.
        ssl_context: For ``wss``, in place of the default.
        system_info: The machine's description for the server; collected at each registration if not given.
        connect: Opens the stream for each try in place of TCP, for example on a Unix socket or in a test.
        options: Timeouts and limits; see `ConnectionOptions` for the defaults. `connect` gets the `connect_timeout` for itself.
        reconnect_delay: Maximum of the first wait before a retry in seconds; doubles up to 60, in the first 30 s of an outage up to 4.
        max_retries: Number of consecutive failures that are retried; None for no limit.
        max_threads: Number of tool threads, including abandoned ones.
        max_queued_batches: Number of queued batches; the commands of any further batch fail immediately.
        random: Source of the waits' jitter.

    Raises:
        ConfigError: An argument is invalid.
        ConnectFailed: The server's certificate is not accepted, or the retries are used up.
        ConnectionLost: The retries are used up, and the last failure was a lost connection.
    """
    check_name("device_id", device_id, MAX_ID)
    check_positive(max_threads=max_threads, max_queued_batches=max_queued_batches)
    options = options or ConnectionOptions()
    memory = options.make_budget()
    options = attrs.evolve(options, memory_budget=memory)
    if system_info is not None:
        _check_system_info(system_info)
    headers = tuple(headers)
    threads = ThreadLimiter(max_threads)
    index = index_with_list_tools(make_tools(tools), tool_sources)
    # Warns about tools with the same name before anyone calls them.
    index.current()
    runner = CommandRunner(index, threads, options.max_message_size)

    @asynccontextmanager
    async def open_one(
        hand_on: Callable[[ServerMessage, MemoryShare], None],
        hand_on_invalid: Callable[[InvalidMessage], None],
    ) -> AsyncGenerator[DeviceConnection]:
        info = await collect_system_info(device_id) if system_info is None else system_info
        current_token = await read_token(token, options.connect_timeout) if callable(token) else token
        # Opened last: until `open_device_connection` takes it over, nothing would close it.
        stream = None if connect is None else await open_given_stream(connect, options.connect_timeout)
        async with connect_device(
            url,
            device_id,
            system_info=info,
            token=current_token,
            headers=headers,
            ssl_context=ssl_context,
            stream=stream,
            options=options,
            hand_on=hand_on,
            hand_on_invalid=hand_on_invalid,
        ) as connection:
            yield connection

    def make_queue(outbox: Outbox, counts: CommandCounts) -> CommandQueue:
        return CommandQueue(
            device_id, runner, outbox, counts, max_queued=max_queued_batches, max_message_size=options.max_message_size
        )

    backoff = Backoff(first=reconnect_delay, max_retries=max_retries, random=random)
    agent = Agent(device_id, open_one, make_queue, index, threads, backoff, memory)
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(agent._run)  # noqa: SLF001  # same module
                yield agent
            except BaseException as error:  # raised below, as the same object
                if nursery.cancel_scope.cancel_called:
                    # The agent gave up and the nursery cancelled the block: this Cancelled belongs to the nursery.
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
