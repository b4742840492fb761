"""A server's sessions, each of which runs one task."""

from __future__ import annotations

import logging
import math
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, cast

import attrs
import trio

from galaxy_trio._arguments import MAX_PARTS
from galaxy_trio._codec.strict_types import Mismatch, shorten
from galaxy_trio._codec.tool_list import read_tools
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._counted import counted
from galaxy_trio.errors import ConnectionLost, InvalidMessage, MessageTooLarge, RequestTimeout, TaskFailed
from galaxy_trio.messages import (
    JSON,
    Command,
    CommandResult,
    ResultStatus,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
    ToolInfo,
    ToolType,
)
from galaxy_trio.server.registry import Client

logger: Final = logging.getLogger(__name__)

DEVICE_LEFT = "Task was cancelled because target device disconnected"
CONSTELLATION_LEFT = "Task was cancelled because its constellation disconnected"
MAX_SESSIONS: Final = 100
"""Default number of concurrent sessions of one client, including ended ones whose ``task_end`` is not sent yet."""

_MAX_REASON: Final = 500
"""Characters of the reason why a result cannot be sent."""
AGENT_NAME: Final = "galaxy_trio"

_RunCommands: TypeAlias = Callable[[Sequence[Command], bool, float], Awaitable[list[CommandResult]]]


@attrs.frozen
class ServerTask:
    """A task as the session function sees it.

    Attributes:
        session_id: The session's id.
        request: The client's request in words.
        device_id: The device to run the task on.
        client_id: The client that submitted the task.
        task_name: The client's name for the task.
    """

    session_id: str
    request: str
    device_id: str
    client_id: str
    task_name: str | None = None
    _run_commands: _RunCommands | None = attrs.field(default=None, repr=False, eq=False)

    async def execute(
        self, commands: Sequence[Command], *, stop_on_failure: bool = True, timeout: float = math.inf
    ) -> list[CommandResult]:
        """Run commands on the device, in order, and wait for their results.

        A task may send several batches concurrently; the device runs one at a time. Cancelling stops the wait, not the commands: when the
        task ends, this package's agent cancels them, the original's finishes them.

        Args:
            commands: The commands. Each gets a call id if it has none.
            stop_on_failure: Whether the device skips the commands after a failed one. With False, this package's agent continues; the
                original's device skips them all the same.
            timeout: Seconds to send the commands and receive the results; `math.inf` for no limit.

        Returns:
            One result for each command, in the order of the commands; with status `ResultStatus.NONE` where the device sent none.

        Raises:
            RequestTimeout: The device did not reply in time; it may have run the commands, or may still run them.
            QueueFull: The device has left too many batches unanswered; nothing was sent.
            InvalidMessage: The results are invalid, or the commands cannot be written as JSON.
            MessageTooLarge: The commands are above the server's limit; nothing was sent.
            ConnectionLost: The device has disconnected, which cancels the session too.
            trio.ClosedResourceError: The session has ended.
            ValueError: Two commands have the same call id, or there are more than 10,000.

        See "Commands" in docs/reference/wire.md.
        """
        if self._run_commands is None:
            raise trio.ClosedResourceError(f"session {self.session_id!r} runs on no device")
        return await self._run_commands(commands, stop_on_failure, timeout)

    async def list_tools(
        self, tool_type: ToolType | None = None, namespace: str | None = None, *, timeout: float = math.inf
    ) -> list[ToolInfo]:
        """Ask the device for its tools: their names, descriptions and schemas.

        Cancelling is as safe as for `execute`.

        Args:
            tool_type: List only tools of this type.
            namespace: List only tools of this namespace.
            timeout: Seconds to send the command and receive the list; `math.inf` for no limit.

        Returns:
            The tools. One whose description is invalid is left out, with a warning in the log.

        Raises:
            TaskFailed: The device cannot list its tools; the text is its reason.
            GalaxyError: As for `execute`.

        See "Listing tools" in docs/reference/wire.md.
        """
        parameters: dict[str, JSON] = {} if tool_type is None else {"tool_type": tool_type}
        if namespace is not None:
            parameters["namespace"] = namespace
        [answer] = await self.execute([Command("list_tools", ToolType.ACTION, parameters)], timeout=timeout)
        device = f"device {self.device_id!r}"
        if answer.status is not ResultStatus.SUCCESS:
            why = answer.error or f"it answered with the status {answer.status.value}"
            raise TaskFailed(f"{device} cannot list its tools: {why}")
        try:
            return read_tools(answer.result, lambda problem: logger.warning("%s listed an invalid %s", device, problem))
        except Mismatch as wrong:
            raise TaskFailed(f"{device} cannot list its tools: {wrong}") from None


SessionFunction: TypeAlias = Callable[[ServerTask], Awaitable[object]]
"""Runs one task and returns its result; see docs/reference/api/server.md."""


@attrs.frozen
class End:
    """A session's end; the fields are those of its ``task_end``."""

    status: TaskStatus
    result: JSON = None
    error: str | None = None


@attrs.define(eq=False)
class Session:
    """A session's state. `size` is the size of the message that started it, in bytes."""

    task: ServerTask
    owner: Client
    device: Client
    size: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    end: End | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    def finish(self, end: End) -> None:
        """Set the session's end, unless it has one already."""
        if self.end is None:
            self.end = end
            self.ended.set()
            why = "" if end.error is None else f": {shorten(end.error)}"
            logger.info(
                "session %r on device %r has ended: %s%s",
                self.task.session_id,
                self.device.client_id,
                end.status.value,
                why,
            )

    def cancel(self, reason: str) -> None:
        """Cancel the session. Its end is sent now, however long its function takes to clean up."""
        self.finish(End(TaskStatus.FAILED, {}, reason))
        self.scope.cancel()


class Sessions:
    """A server's running sessions by id.

    Args:
        function: Runs one session.
        nursery: Runs the sessions' tasks.
        max_sessions: Number of concurrent sessions of one client.
    """

    def __init__(self, function: SessionFunction, nursery: trio.Nursery, max_sessions: int = MAX_SESSIONS) -> None:
        self._function = function
        self._nursery = nursery
        self._max_sessions = max_sessions
        # A session stays here until its function has returned and its end is sent, so that it counts while a client does not read.
        self._unfinished: dict[str, Session] = {}
        self._owned: Counter[Client] = Counter()
        self._waiters = trio.lowlevel.ParkingLot()
        self._stopping = False

    def running(self) -> int:
        """Number of sessions that have not ended."""
        return sum(session.end is None for session in self._unfinished.values())

    def ending(self) -> int:
        """Number of ended sessions whose function still cleans up or whose end is not sent yet."""
        return len(self._unfinished) - self.running()

    def refusal(self, session_id: str, client: Client) -> str | None:
        """Return why a client cannot start a session with this id; None if it can."""
        if self._stopping:
            return "the server is shutting down"
        session = self._unfinished.get(session_id)
        if session is not None:
            if session.owner.client_id != client.client_id:
                return f"session_id {session_id!r} is owned by another client"
            return f"session_id {session_id!r} is in use"
        if self._owned[client] >= self._max_sessions:
            return f"client {client.client_id!r} has {self._max_sessions} sessions already: wait until one has ended"
        return None

    def start(self, session_id: str, request: str, task_name: str | None, owner: Client, device: Client) -> None:
        """Start a session for which `refusal` returned None."""
        # The original server replaces the slashes of a task's name in its commands.
        run_commands = partial(
            self._run_commands, session_id, device, None if task_name is None else task_name.replace("/", "_")
        )
        task = ServerTask(session_id, request, device.client_id, owner.client_id, task_name, run_commands)
        session = Session(task, owner, device, owner.sender.memory.message_size)
        owner.sender.memory.add(session.size)
        # Added here, not in the session's first step: the server may stop before that.
        self._unfinished[session_id] = session
        self._owned[owner] += 1
        logger.info(
            "session %r on device %r has started, for %s %r",
            session_id,
            device.client_id,
            owner.client_type.value,
            owner.client_id,
        )
        self._nursery.start_soon(self._run, session)

    def concerns(self, client: Client) -> bool:
        """Whether a client submitted a running session, or runs one."""
        return any(client in (session.owner, session.device) for session in self._unfinished.values())

    def client_left(self, client: Client) -> None:
        """Cancel the sessions that a client submitted or runs."""
        for session in self._unfinished.values():
            if session.owner is client:
                session.cancel(CONSTELLATION_LEFT)
            elif session.device is client:
                session.cancel(DEVICE_LEFT)

    def cancel_all(self, reason: str) -> None:
        """Cancel all sessions, notify their clients, and refuse new ones."""
        self._stopping = True
        for session in self._unfinished.values():
            session.cancel(reason)

    async def wait_all_ended(self) -> None:
        """Wait until all sessions have ended and their clients are notified."""
        while self._unfinished:
            await self._waiters.park()

    async def _run(self, session: Session) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._work, session)
                await session.ended.wait()
                await self._send_end(session)
        finally:
            del self._unfinished[session.task.session_id]
            session.owner.sender.memory.add(-session.size)
            session.owner.last_active = session.device.last_active = trio.current_time()
            self._owned[session.owner] -= 1
            if not self._owned[session.owner]:
                del self._owned[session.owner]
            self._waiters.unpark_all()

    async def _work(self, session: Session) -> None:
        try:
            with session.scope:
                session.finish(await self._call(session))
        except Exception as error:
            # Any exception fails the task, unless the session was cancelled and has its end already.
            logger.info("session %r failed", session.task.session_id, exc_info=error)
            session.finish(End(TaskStatus.FAILED, {}, _describe(error)))

    async def _call(self, session: Session) -> End:
        try:
            result = await self._function(session.task)
        except TaskFailed as failed:
            return End(TaskStatus.FAILED, cast("JSON", failed.result), str(failed) or None)
        return End(TaskStatus.COMPLETED, cast("JSON", result))

    async def _run_commands(
        self,
        session_id: str,
        device: Client,
        task_name: str | None,
        commands: Sequence[Command],
        stop_on_failure: bool,
        timeout: float,
    ) -> list[CommandResult]:
        session = self._unfinished.get(session_id)
        if session is None or session.end is not None:
            raise trio.ClosedResourceError(f"session {session_id!r} has ended: it cannot run commands any more")
        if not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds or math.inf, not {timeout!r}")
        if len(commands) > MAX_PARTS:
            raise ValueError(f"{len(commands):,} commands: a batch has at most {MAX_PARTS:,}, so send several batches")
        actions = [
            command if command.call_id else attrs.evolve(command, call_id=str(uuid.uuid4())) for command in commands
        ]
        if len({action.call_id for action in actions}) < len(actions):
            raise ValueError("two commands of a batch have the same call_id")
        if not actions:
            await trio.lowlevel.checkpoint()
            return []
        response_id = str(uuid.uuid4())
        message = ServerMessage(
            ServerMessageType.COMMAND,
            TaskStatus.CONTINUE,
            agent_name=AGENT_NAME,
            actions=actions,
            session_id=session_id,
            task_name=task_name,
            timestamp=wall_clock.timestamp(),
            response_id=response_id,
            stop_on_failure=None if stop_on_failure else False,
        )
        device.commands.check()
        with trio.move_on_after(timeout):
            batch = await device.sender.send(
                message, partial(device.commands.register, response_id, session_id, actions)
            )
            try:
                return await batch.receive()
            finally:
                device.commands.abandon(batch)
        raise RequestTimeout(
            f"device {device.client_id!r} did not answer {counted(len(actions), 'command')} within {timeout:g} s"
        )

    async def _send_end(self, session: Session) -> None:
        ended = cast("End", session.end)
        message = ServerMessage(
            ServerMessageType.TASK_END,
            ended.status,
            error=ended.error,
            session_id=session.task.session_id,
            timestamp=wall_clock.timestamp(),
            response_id=str(uuid.uuid4()),
            result=ended.result,
        )
        # Concurrently, so that a client that does not read does not delay the other. A device's own task has only one client.
        async with trio.open_nursery() as nursery:
            for client in dict.fromkeys((session.owner, session.device)):
                nursery.start_soon(self._send_end_to, client, message)

    async def _send_end_to(self, client: Client, end: ServerMessage) -> None:
        try:
            await self._send(client, end)
        except Exception as unsendable:  # noqa: BLE001  # writing a session's result may raise anything
            problem = f"the session's result cannot be sent: {_describe(unsendable)[:_MAX_REASON]}"
            # The exception may come from the result itself, and its text may contain lone surrogates.
            error = problem.encode(errors="backslashreplace").decode()
            try:
                await self._send(client, attrs.evolve(end, status=TaskStatus.FAILED, result={}, error=error))
            except (InvalidMessage, MessageTooLarge) as too_large:
                logger.warning("the end of a session could not be sent to %r: %s", client.client_id, too_large)

    async def _send(self, client: Client, message: ServerMessage) -> None:
        # A client that has disconnected needs no message.
        with suppress(ConnectionLost, trio.ClosedResourceError):
            await client.sender.send(message, _register_nothing)


def _register_nothing() -> None:
    """Register no reply: nothing waits for one."""


def _describe(error: Exception) -> str:
    """An exception's text, or its type's name if the text is empty or cannot be had."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001  # a session's exception may have a `__str__` that raises
        return type(error).__name__
