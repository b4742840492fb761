"""The tasks that a server runs: each in a task of its own, each ending in exactly one ``task_end``."""

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

from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.errors import ConnectionLost, InvalidMessage, MessageTooLarge, RequestTimeout, TaskFailed
from galaxy_trio.messages import JSON, Command, CommandResult, ServerMessage, ServerMessageType, TaskStatus
from galaxy_trio.server.registry import Client

logger: Final = logging.getLogger(__name__)

DEVICE_LEFT = "Task was cancelled because target device disconnected"
CONSTELLATION_LEFT = "Task was cancelled because its constellation disconnected"
MAX_SESSIONS: Final = 100
"""Sessions of one client that may run at once, those among them whose end it has not been told."""

AGENT_NAME: Final = "galaxy_trio"

_RunCommands: TypeAlias = Callable[[Sequence[Command], bool, float], Awaitable[list[CommandResult]]]


@attrs.frozen
class ServerTask:
    """What a session function is given.

    Attributes:
        request: What to do, in words.
        device_id: On which device.
        client_id: Who asked.
        task_name: How the client calls it.
    """

    session_id: str
    request: str
    device_id: str
    client_id: str
    task_name: str | None = None
    _run_commands: _RunCommands | None = attrs.field(default=None, repr=False, eq=False)

    async def execute(
        self, commands: Sequence[Command], *, stop_on_failure: bool = False, timeout: float = math.inf
    ) -> list[CommandResult]:
        """Let the device run commands, in order, and wait for their results.

        Batches of one task may be on their way at once; the device runs one at a time. When this is cancelled the results are no longer
        waited for; this package's agent stops what it runs when the task has ended, the original's finishes it.

        Args:
            commands: What to run. Each gets a call id if it has none.
            stop_on_failure: Whether the device is to skip what comes after a failure; this package's agent does, the original's goes on.
            timeout: Seconds to send them and get the results; `math.inf` for no limit.

        Returns:
            One result for each command, in the order of the commands. Where the device sent none, its status is `ResultStatus.NONE`.

        Raises:
            RequestTimeout: The device did not answer in time; it may have run the commands, or still run them.
            QueueFull: The device has left too many batches unanswered; nothing was sent.
            InvalidMessage: The results are broken, or the commands hold what JSON cannot.
            MessageTooLarge: The commands are above the server's limit; nothing was sent.
            ConnectionLost: The device has gone. The session is cancelled for it, too.
            trio.ClosedResourceError: The session has ended.
            ValueError: Two commands have the same call id.

        See "Commands" in docs/reference/wire.md.
        """
        if self._run_commands is None:
            raise trio.ClosedResourceError(f"session {self.session_id!r} runs on no device")
        return await self._run_commands(commands, stop_on_failure, timeout)


SessionFunction: TypeAlias = Callable[[ServerTask], Awaitable[object]]
"""Runs one task. What it returns is the task's result, which JSON must be able to hold; raising `TaskFailed` gives a failed
task its result; raising anything else fails the task with the error's text. It is cancelled when its device or client leaves."""


@attrs.frozen
class End:
    """How a session ended; the fields are those of its ``task_end``."""

    status: TaskStatus
    result: JSON = None
    error: str | None = None


@attrs.define(eq=False)
class Session:
    """A running task: whose it is, where it runs, how it ended."""

    task: ServerTask
    owner: Client
    device: Client
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    end: End | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    def finish(self, end: End) -> None:
        """This is how it ended. The first way counts."""
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
        """Stop it. Its end is told now, however long its function takes to clean up."""
        self.finish(End(TaskStatus.FAILED, {}, reason))
        self.scope.cancel()


class Sessions:
    """The running sessions of a server, by session id.

    Args:
        function: Runs one of them.
        nursery: In which they run.
        max_sessions: How many a client may have at once.
    """

    def __init__(self, function: SessionFunction, nursery: trio.Nursery, max_sessions: int = MAX_SESSIONS) -> None:
        self._function = function
        self._nursery = nursery
        self._max_sessions = max_sessions
        # Until its function has returned and its end has been told: what waits for a client that does not read counts too.
        self._unfinished: dict[str, Session] = {}
        self._owned: Counter[Client] = Counter()
        self._one_finished = trio.Event()
        self._stopping = False

    def running(self) -> int:
        """Those that have not ended."""
        return sum(session.end is None for session in self._unfinished.values())

    def ending(self) -> int:
        """Those that have ended, and whose function still cleans up or whose end has not been told yet."""
        return len(self._unfinished) - self.running()

    def refusal(self, session_id: str, client: Client) -> str | None:
        """Why a client cannot start a session of this name; None if it can."""
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
        """Run a task that `refusal` has nothing against."""
        # The wire's form of a task's name, as it was recorded.
        run_commands = partial(
            self._run_commands, session_id, device, None if task_name is None else task_name.replace("/", "_")
        )
        task = ServerTask(session_id, request, device.client_id, owner.client_id, task_name, run_commands)
        session = Session(task, owner, device)
        # Here and not in its first step: the server may stop before that.
        self._unfinished[session_id] = session
        self._owned[owner] += 1
        logger.info(
            "session %r on device %r begins, for %s %r",
            session_id,
            device.client_id,
            owner.client_type.value,
            owner.client_id,
        )
        self._nursery.start_soon(self._run, session)

    def concerns(self, client: Client) -> bool:
        """Whether a session runs for a client, or on it."""
        return any(client in (session.owner, session.device) for session in self._unfinished.values())

    def client_left(self, client: Client) -> None:
        """Cancel what runs for a client, or on it."""
        for session in self._unfinished.values():
            if session.owner is client:
                session.cancel(CONSTELLATION_LEFT)
            elif session.device is client:
                session.cancel(DEVICE_LEFT)

    def cancel_all(self, reason: str) -> None:
        """Cancel all that runs, and start nothing any more; clients are told."""
        self._stopping = True
        for session in self._unfinished.values():
            session.cancel(reason)

    async def wait_all_ended(self) -> None:
        """Wait until no session runs, and the clients of all have been told."""
        while self._unfinished:
            await self._one_finished.wait()

    # ---- a session's life

    async def _run(self, session: Session) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._work, session)
                await session.ended.wait()
                await self._tell(session)
        finally:
            del self._unfinished[session.task.session_id]
            session.owner.last_active = session.device.last_active = trio.current_time()
            self._owned[session.owner] -= 1
            if not self._owned[session.owner]:
                del self._owned[session.owner]
            self._one_finished.set()
            self._one_finished = trio.Event()

    async def _work(self, session: Session) -> None:
        try:
            with session.scope:
                session.finish(await self._call(session))
        except (
            Exception
        ) as error:  # whatever a session raises is its task's outcome, unless it had one: it was cancelled
            logger.info("session %r failed", session.task.session_id, exc_info=error)
            session.finish(End(TaskStatus.FAILED, {}, _words(error)))

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
            raise trio.ClosedResourceError(f"session {session_id!r} has ended: it can run no more commands")
        if not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds or math.inf, not {timeout!r}")
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
            stop_on_failure=True if stop_on_failure else None,
        )
        device.commands.check()
        with trio.move_on_after(timeout):
            batch = await device.outbox.send(
                message, partial(device.commands.register, response_id, session_id, actions)
            )
            try:
                return await batch.receive()
            finally:
                device.commands.forget(batch)
        raise RequestTimeout(f"device {device.client_id!r} did not answer {len(actions)} commands within {timeout:g} s")

    # ---- its end

    async def _tell(self, session: Session) -> None:
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
        # At once: one that does not read must not keep the other waiting. A device that submits a task of its own is both.
        async with trio.open_nursery() as nursery:
            for client in dict.fromkeys((session.owner, session.device)):
                nursery.start_soon(self._tell_one, client, message)

    async def _tell_one(self, client: Client, end: ServerMessage) -> None:
        try:
            await self._send(client, end)
        except Exception as unsendable:  # noqa: BLE001  # whatever a session has returned, writing it may raise anything
            problem = f"the session's result cannot be sent: {_words(unsendable)}"
            try:
                await self._send(client, attrs.evolve(end, status=TaskStatus.FAILED, result={}, error=problem))
            except (InvalidMessage, MessageTooLarge) as error:
                logger.warning("%r cannot be told the end of a session: %s", client.client_id, error)

    async def _send(self, client: Client, message: ServerMessage) -> None:
        # Who has gone needs to be told nothing.
        with suppress(ConnectionLost, trio.ClosedResourceError):
            await client.outbox.send(message, _nothing)


def _nothing() -> None:
    """Nothing to register: nobody waits for an answer."""


def _words(error: Exception) -> str:
    """What an exception says, or else its name. Saying may fail, and a task's end must not."""
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001  # an exception of a session function has a `__str__` of its own
        return type(error).__name__
