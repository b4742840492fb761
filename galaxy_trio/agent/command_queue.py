"""A device's queue of command batches. See "Commands" in docs/reference/wire.md."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._codec.codec import encode
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.limited_log import LimitedLog
from galaxy_trio._concurrency.memory_budget import MemoryShare
from galaxy_trio._counted import counted
from galaxy_trio.agent.command_runner import failure, one_line
from galaxy_trio.agent.outbox import send_first
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    ClientMessage,
    ClientMessageType,
    CommandResult,
    ResultStatus,
    ServerMessage,
    ServerMessageType,
    TaskStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.agent.command_runner import CommandRunner
    from galaxy_trio.agent.connection import DeviceConnection
    from galaxy_trio.agent.outbox import Outbox

logger: Final = logging.getLogger(__name__)

MAX_QUEUED_BATCHES: Final = 100
"""Default limit of queued batches."""
_SKIPPED: Final = "skipped, because an earlier command of the batch failed"
_NO_ACTION: Final = "No action taken."
"""The result of a command without a tool's name, in the original's words."""


@attrs.define
class CommandCounts:
    """Counts over all connections of a device; see `AgentStatistics`."""

    batches: int = 0
    commands: int = 0
    failures: int = 0
    skipped: int = 0


@attrs.frozen(eq=False)
class _Batch:
    """A batch that waits, and the memory that it is counted in."""

    message: ServerMessage
    memory: MemoryShare
    size: int


class CommandQueue:
    """The FIFO queue of one connection's batches.

    Args:
        device_id: The device's name.
        runner: Runs the commands.
        outbox: Takes replies that do not wait for a turn.
        counts: Updated as batches are received and run.
        max_queued: Number of queued batches; the commands of any further batch fail.
        max_message_size: Largest message with results in bytes.
    """

    def __init__(
        self,
        device_id: str,
        runner: CommandRunner,
        outbox: Outbox,
        counts: CommandCounts,
        *,
        max_queued: int,
        max_message_size: int,
    ) -> None:
        self._device_id = device_id
        self._outbox = outbox
        self._runner = runner
        self._counts = counts
        self._max_queued = max_queued
        self._max_message_size = max_message_size
        self._queue: deque[_Batch] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self._refused = LimitedLog(logger)
        self._running: tuple[str | None, trio.CancelScope] | None = None

    @property
    def queued(self) -> int:
        """Number of queued batches."""
        return len(self._queue)

    def put(self, message: ServerMessage, memory: MemoryShare) -> None:
        """Queue a batch, or reply with failures if the queue is full. Never blocks.

        Args:
            message: The batch.
            memory: The memory share of the batch's connection. The batch counts until its results or failures are sent.
        """
        self._counts.batches += 1
        if len(self._queue) < self._max_queued:
            self._queue.append(_Batch(message, memory, memory.message_size))
            memory.add(memory.message_size)
            self._idle.unpark_all()
            return
        number = len(message.actions or [])
        self._refused.problem(
            "refused a batch of %s: the queue is full, with %s",
            counted(number, "command"),
            counted(self._max_queued, "batch", "batches"),
        )
        self._counts.commands += number
        self._counts.failures += number
        self._outbox.put(self._refusals(message), memory)

    def _refusals(self, message: ServerMessage) -> Iterator[ClientMessage]:
        """Make the replies to a batch for which there was no room, when they are sent: many failures take more memory than the batch."""
        full = counted(self._max_queued, "batch", "batches")
        why = f"this device's queue is full, with {full}: no command of this one was run"
        yield from self._replies(message, [failure(command, why) for command in message.actions or []])

    def refuse(self, broken: InvalidMessage) -> None:
        """Reply to a batch that cannot be read, so that the server does not wait for its results. Without an id it is dropped."""
        logger.info("refused a batch of commands: %s", broken)
        if broken.response_id is None:
            return
        message = ServerMessage(
            ServerMessageType.COMMAND,
            TaskStatus.CONTINUE,
            session_id=broken.session_id,
            response_id=broken.response_id,
        )
        self._outbox.put([attrs.evolve(self._reply(message, []), error=one_line(str(broken)))])

    def end_session(self, session_id: str) -> None:
        """Drop a session's queued batches and cancel its running one. Nothing is sent."""
        for batch in [batch for batch in self._queue if batch.message.session_id == session_id]:
            self._queue.remove(batch)
            batch.memory.add(-batch.size)
        if self._running is not None and self._running[0] == session_id:
            self._running[1].cancel()

    async def run(self, connection: DeviceConnection) -> None:
        """Run one batch after another until the connection ends."""
        while True:
            while not self._queue:
                await self._idle.park()
            # No variable here: it would keep a batch and its results alive until the next one arrives.
            if not await self._answer(self._queue.popleft(), connection):
                return

    async def _answer(self, batch: _Batch, connection: DeviceConnection) -> bool:
        """Run a batch and send its results. Returns False when the connection has ended."""
        message = batch.message
        with trio.CancelScope() as scope:
            self._running = (message.session_id, scope)
            try:
                results = await self._run(message)
                return await send_first(connection, self._replies(message, results))
            finally:
                self._running = None
                batch.memory.add(-batch.size)
        return True

    async def _run(self, message: ServerMessage) -> list[CommandResult]:
        results: list[CommandResult] = []
        failed = False
        for command in message.actions or []:
            # In this order, as on the original's device.
            if not command.tool_name:
                result = CommandResult(ResultStatus.SUCCESS, result=_NO_ACTION, call_id=command.call_id)
            elif failed and message.stop_on_failure is not False:
                result = CommandResult(ResultStatus.SKIPPED, error=_SKIPPED, call_id=command.call_id)
            else:
                result = await self._runner.run(command)
                failed = failed or result.status is ResultStatus.FAILURE
            self._count([result])
            results.append(result)
        return results

    def _count(self, results: list[CommandResult]) -> None:
        self._counts.commands += len(results)
        self._counts.failures += sum(result.status is ResultStatus.FAILURE for result in results)
        self._counts.skipped += sum(result.status is ResultStatus.SKIPPED for result in results)

    def _replies(self, message: ServerMessage, results: list[CommandResult]) -> Iterator[ClientMessage]:
        """Make the reply, then smaller ones in case it cannot be sent. Even the last may be too large: it repeats the server's ids."""
        reply = self._reply(message, results)
        yield reply
        yield attrs.evolve(reply, action_results=self._shrunk(reply, results))
        why = (
            f"{counted(len(results), 'result')} of commands do not fit into a message of {self._max_message_size} bytes"
        )
        yield attrs.evolve(reply, action_results=[], error=why)

    def _reply(self, message: ServerMessage, results: list[CommandResult]) -> ClientMessage:
        return ClientMessage(
            ClientMessageType.COMMAND_RESULTS,
            TaskStatus.CONTINUE,
            session_id=message.session_id,
            client_id=self._device_id,
            action_results=results,
            timestamp=wall_clock.timestamp(),
            request_id=str(uuid.uuid4()),
            prev_response_id=message.response_id,
        )

    def _shrunk(self, reply: ClientMessage, results: list[CommandResult]) -> list[CommandResult]:
        """Replace results that cannot be sent by failures, then the largest ones until the rest fits."""
        shrunk = list(results)
        sizes: list[int] = []
        for index, result in enumerate(results):
            try:
                sizes.append(_size_of(result))
            except InvalidMessage as invalid:
                # The tool's namespace is not valid text.
                shrunk[index] = _failed(result, f"the result cannot be sent: {invalid}")
                sizes.append(_size_of(shrunk[index]))
        commas = len(results) - 1
        room = self._max_message_size - _bytes(attrs.evolve(reply, action_results=[])) - commas
        excess = sum(sizes) - room
        for index in sorted(range(len(results)), key=sizes.__getitem__, reverse=True):
            if excess <= 0:
                break
            small = _failed(
                results[index], f"its result of {counted(sizes[index], 'byte')} does not fit into the batch's reply"
            )
            saved = sizes[index] - _size_of(small)
            # A failure repeats the command's id, so it may be larger than a short result.
            if saved > 0:
                excess -= saved
                shrunk[index] = small
        self._counts.failures += sum(new.status is not old.status for new, old in zip(shrunk, results, strict=True))
        return shrunk


def _failed(result: CommandResult, why: str) -> CommandResult:
    return CommandResult(ResultStatus.FAILURE, error=one_line(why), call_id=result.call_id)


def _bytes(message: ClientMessage) -> int:
    text = encode(message)
    return len(text) if text.isascii() else len(text.encode())


_EMPTY: Final = ClientMessage(ClientMessageType.COMMAND_RESULTS, TaskStatus.CONTINUE, action_results=[])
_EMPTY_BYTES: Final = _bytes(_EMPTY)


def _size_of(result: CommandResult) -> int:
    return _bytes(attrs.evolve(_EMPTY, action_results=[result])) - _EMPTY_BYTES
