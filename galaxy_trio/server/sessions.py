"""The tasks that a server runs: each in a task of its own, each ending in exactly one ``task_end``."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeAlias, cast

import attrs
import trio

from galaxy_trio.errors import ConnectionLost, InvalidMessage, MessageTooLarge, TaskFailed
from galaxy_trio.messages import JSON, ServerMessage, ServerMessageType, TaskStatus
from galaxy_trio.server.registry import Client

logger = logging.getLogger(__name__)

DEVICE_LEFT = "Task was cancelled because target device disconnected"
CONSTELLATION_LEFT = "Task was cancelled because its constellation disconnected"


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


SessionFunction: TypeAlias = Callable[[ServerTask], Awaitable[object]]
"""Runs one task. What it returns is the task's result, which JSON must be able to hold; raising `TaskFailed` gives a failed
task its result; raising anything else fails the task with the error's text. It is cancelled when its device or client leaves."""


@attrs.define(eq=False)
class Session:
    """A running task: whose it is, where it runs, and how to stop it."""

    task: ServerTask
    owner: Client
    device: Client
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    cancelled_because: str | None = None
    owner_left: bool = False

    def cancel(self, reason: str) -> None:
        """Stop it. The first reason counts."""
        if self.cancelled_because is None:
            self.cancelled_because = reason
            self.scope.cancel()


class Sessions:
    """The running sessions of a server, by session id."""

    def __init__(self, function: SessionFunction, nursery: trio.Nursery) -> None:
        self._function = function
        self._nursery = nursery
        self._running: dict[str, Session] = {}
        self._unfinished = 0
        self._one_finished = trio.Event()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._running)

    def refusal(self, session_id: str, client_id: str) -> str | None:
        """Why a client cannot start a session of this name; None if it can."""
        if self._stopping:
            return "the server is shutting down"
        session = self._running.get(session_id)
        if session is None:
            return None
        if session.owner.client_id != client_id:
            return f"session_id {session_id!r} is owned by another client"
        return f"session_id {session_id!r} is in use"

    def start(self, task: ServerTask, owner: Client, device: Client) -> None:
        """Run a task that `refusal` has nothing against."""
        session = Session(task, owner, device)
        self._running[task.session_id] = session
        # Counted here: the server may stop before the session's first step.
        self._unfinished += 1
        self._nursery.start_soon(self._run, session)

    def client_left(self, client: Client) -> None:
        """Cancel what runs for a client, or on it."""
        for session in self._running.values():
            if session.owner is client:
                session.owner_left = True
                session.cancel(CONSTELLATION_LEFT)
            elif session.device is client:
                session.cancel(DEVICE_LEFT)

    def cancel_all(self, reason: str) -> None:
        """Cancel all that runs, and start nothing any more; clients are told."""
        self._stopping = True
        for session in self._running.values():
            session.cancel(reason)

    async def wait_all_ended(self) -> None:
        """Wait until no session runs, and the clients of all have been told."""
        while self._unfinished:
            await self._one_finished.wait()

    async def _run(self, session: Session) -> None:
        try:
            await self._tell(session, *await self._outcome(session))
        finally:
            self._unfinished -= 1
            self._one_finished.set()
            self._one_finished = trio.Event()

    async def _outcome(self, session: Session) -> tuple[TaskStatus, JSON, str | None]:
        try:
            with session.scope:
                return await self._call(session.task)
        except Exception as error:  # it failed while it was cancelled: a nursery of its own raised both, as one group
            logger.info("session %s failed while it was cancelled", session.task.session_id, exc_info=error)
        finally:
            del self._running[session.task.session_id]
        return TaskStatus.FAILED, {}, session.cancelled_because

    async def _call(self, task: ServerTask) -> tuple[TaskStatus, JSON, str | None]:
        try:
            result = await self._function(task)
        except TaskFailed as failed:
            return TaskStatus.FAILED, cast("JSON", failed.result), str(failed) or None
        except Exception as error:  # whatever a session raises is its task's outcome
            logger.info("session %s failed", task.session_id, exc_info=error)
            return TaskStatus.FAILED, {}, str(error) or type(error).__name__
        return TaskStatus.COMPLETED, cast("JSON", result), None

    async def _tell(self, session: Session, status: TaskStatus, result: JSON, error: str | None) -> None:
        end = ServerMessage(
            ServerMessageType.TASK_END,
            status,
            error=error,
            session_id=session.task.session_id,
            timestamp=datetime.now(UTC).isoformat(),
            response_id=str(uuid.uuid4()),
            result=result,
        )
        parties = [session.device] if session.owner_left else [session.owner, session.device]
        # At once: one that does not read must not keep the other waiting. A device that submits a task of its own is both.
        async with trio.open_nursery() as nursery:
            for client in dict.fromkeys(parties):
                nursery.start_soon(self._tell_one, client, end)

    async def _tell_one(self, client: Client, end: ServerMessage) -> None:
        try:
            await self._send(client, end)
        except Exception as unsendable:  # noqa: BLE001  # whatever a session has returned, writing it may raise anything
            problem = f"the session's result cannot be sent: {unsendable}"
            try:
                await self._send(client, attrs.evolve(end, status=TaskStatus.FAILED, result={}, error=problem))
            except (InvalidMessage, MessageTooLarge) as error:
                logger.warning("%s cannot be told the end of a session: %s", client.client_id, error)

    async def _send(self, client: Client, message: ServerMessage) -> None:
        # Who has gone needs to be told nothing.
        with suppress(ConnectionLost, trio.ClosedResourceError):
            await client.outbox.send(message, _nothing)


def _nothing() -> None:
    """Nothing to register: nobody waits for an answer."""
