"""The commands of a device: batches that wait, one that runs, and their results. See "Commands" in docs/reference/wire.md."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio._codec.codec import encode
from galaxy_trio._concurrency import wall_clock
from galaxy_trio.agent.command_runner import failure, one_line
from galaxy_trio.agent.outbox import send_first
from galaxy_trio.errors import InvalidMessage
from galaxy_trio.messages import (
    ClientMessage,
    ClientMessageType,
    CommandResult,
    ResultStatus,
    ServerMessage,
    TaskStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from galaxy_trio.agent.command_runner import Toolbox
    from galaxy_trio.agent.connection import DeviceConnection
    from galaxy_trio.agent.outbox import Outbox

logger: Final = logging.getLogger(__name__)

MAX_QUEUED_BATCHES: Final = 100
"""Batches that may wait, unless told otherwise."""


@attrs.define
class Counts:
    """What came and went, over all connections of a device."""

    batches: int = 0
    commands: int = 0
    failures: int = 0
    skipped: int = 0


class Batches:
    """The batches of one connection.

    Args:
        device_id: The device's name.
        toolbox: What runs the commands.
        outbox: Where answers go that are given at once.
        counts: Kept up.
        max_queued: How many may wait; one more is answered with failures.
        max_message_size: Bytes that a message with results may have.
    """

    def __init__(
        self,
        device_id: str,
        toolbox: Toolbox,
        outbox: Outbox,
        counts: Counts,
        *,
        max_queued: int,
        max_message_size: int,
    ) -> None:
        self._device_id = device_id
        self._outbox = outbox
        self._toolbox = toolbox
        self._counts = counts
        self._max_queued = max_queued
        self._max_message_size = max_message_size
        self._queue: deque[ServerMessage] = deque()
        self._more = trio.Event()
        self._running: tuple[str | None, trio.CancelScope] | None = None

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def put(self, message: ServerMessage) -> None:
        """A batch has come. It waits for its turn, or is answered at once."""
        self._counts.batches += 1
        if len(self._queue) < self._max_queued:
            self._queue.append(message)
            self._more.set()
            return
        logger.warning(
            "a batch of %d commands is refused: %d wait already", len(message.actions or []), self._max_queued
        )
        why = f"{self._max_queued} batches wait on this device already: nothing of this one was run"
        results = [failure(command, why) for command in message.actions or []]
        self._count(results)
        self._outbox.put(self._answers(message, results))

    def end_session(self, session_id: str) -> None:
        """A session has ended: what of it waits is dropped, what runs is cancelled. Nothing is sent."""
        self._queue = deque(message for message in self._queue if message.session_id != session_id)
        if self._running is not None and self._running[0] == session_id:
            self._running[1].cancel()

    async def run(self, connection: DeviceConnection) -> None:
        """Run one batch after the other, until the connection ends."""
        while True:
            while not self._queue:
                self._more = trio.Event()
                await self._more.wait()
            message = self._queue.popleft()
            with trio.CancelScope() as scope:
                self._running = (message.session_id, scope)
                try:
                    results = await self._run(message)
                    if not await send_first(connection, self._answers(message, results)):
                        return
                finally:
                    self._running = None

    async def _run(self, message: ServerMessage) -> list[CommandResult]:
        results: list[CommandResult] = []
        failed = False
        for command in message.actions or []:
            if failed and message.stop_on_failure:
                why = "a command before it failed"
                result = CommandResult(ResultStatus.SKIPPED, error=why, call_id=command.call_id)
            else:
                result = await self._toolbox.run(command)
                failed = failed or result.status is ResultStatus.FAILURE
            self._count([result])
            results.append(result)
        return results

    def _count(self, results: list[CommandResult]) -> None:
        self._counts.commands += len(results)
        self._counts.failures += sum(result.status is ResultStatus.FAILURE for result in results)
        self._counts.skipped += sum(result.status is ResultStatus.SKIPPED for result in results)

    # ---- results

    def _answers(self, message: ServerMessage, results: list[CommandResult]) -> Iterator[ClientMessage]:
        """What to send, and what in its stead where that cannot be sent. Even the last may be too large: the ids in it are the peer's."""
        answer = ClientMessage(
            ClientMessageType.COMMAND_RESULTS,
            TaskStatus.CONTINUE,
            session_id=message.session_id,
            client_id=self._device_id,
            action_results=results,
            timestamp=wall_clock.timestamp(),
            request_id=str(uuid.uuid4()),
            prev_response_id=message.response_id,
        )
        yield answer
        yield attrs.evolve(answer, action_results=self._shrunk(answer, results))
        why = f"the results of {len(results)} commands are above the {self._max_message_size} bytes of a message"
        yield attrs.evolve(answer, action_results=[], error=why)

    def _shrunk(self, answer: ClientMessage, results: list[CommandResult]) -> list[CommandResult]:
        """The results with failures in place of those that cannot be sent, and of the largest until all fit."""
        shrunk = list(results)
        sizes: list[int] = []
        for index, result in enumerate(results):
            try:
                sizes.append(_size_of(result))
            except InvalidMessage as invalid:
                # Its tool has told a namespace that is none.
                shrunk[index] = _in_place_of(result, f"the result cannot be sent: {invalid}")
                sizes.append(_size_of(shrunk[index]))
        commas = len(results) - 1
        room = self._max_message_size - _bytes(attrs.evolve(answer, action_results=[])) - commas
        excess = sum(sizes) - room
        for index in sorted(range(len(results)), key=sizes.__getitem__, reverse=True):
            small = _in_place_of(results[index], f"its result of {sizes[index]} bytes is too large beside the others'")
            saved = sizes[index] - _size_of(small)
            if excess <= 0 or saved <= 0:
                break
            excess -= saved
            shrunk[index] = small
        self._counts.failures += sum(new.status is not old.status for new, old in zip(shrunk, results, strict=True))
        return shrunk


def _in_place_of(result: CommandResult, why: str) -> CommandResult:
    return CommandResult(ResultStatus.FAILURE, error=one_line(why), call_id=result.call_id)


def _bytes(message: ClientMessage) -> int:
    text = encode(message)
    return len(text) if text.isascii() else len(text.encode())


_EMPTY: Final = ClientMessage(ClientMessageType.COMMAND_RESULTS, TaskStatus.CONTINUE, action_results=[])
_EMPTY_BYTES: Final = _bytes(_EMPTY)


def _size_of(result: CommandResult) -> int:
    return _bytes(attrs.evolve(_EMPTY, action_results=[result])) - _EMPTY_BYTES
