"""A device's pending command batches, each waiting for its own results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from galaxy_trio._counted import counted
from galaxy_trio.errors import InvalidMessage, QueueFull
from galaxy_trio.messages import Command, CommandResult, ResultStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ClientMessage

MAX_UNANSWERED: Final = 1_000
"""Default number of batches that a device may leave unanswered."""
NO_RESULT: Final = "the device sent no result for this command"

_Answer: TypeAlias = "list[CommandResult] | Exception"


@attrs.frozen(eq=False)
class Batch:
    """Commands that were sent together. Made by `PendingCommands.register`."""

    response_id: str
    session_id: str
    commands: Sequence[Command]
    _channel: tuple[trio.MemorySendChannel[_Answer], trio.MemoryReceiveChannel[_Answer]]

    async def receive(self) -> list[CommandResult]:
        """Wait for the results: one for each command, in the order of the commands.

        Raises:
            InvalidMessage: The device sent broken results.
            Exception: The exception given to `PendingCommands.close`: the device has disconnected.
        """
        answer = await self._channel[1].receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def deliver(self, answer: _Answer) -> None:
        """Deliver the results, once. Never blocks, because the channel has room for them."""
        self._channel[0].send_nowait(answer)


class PendingCommands:
    """The batches that one device has not answered. Pure except for the channel of each batch.

    Args:
        device_id: The device's name, for error messages.
        max_unanswered: Number of batches that may be pending.
    """

    def __init__(self, device_id: str, max_unanswered: int = MAX_UNANSWERED) -> None:
        self._device_id = device_id
        self._max_unanswered = max_unanswered
        self._batches: dict[str, Batch] = {}
        self.unexpected_results: int = 0
        """Results for no pending batch: late, duplicate, with an unknown id or another session's."""

    def __len__(self) -> int:
        return len(self._batches)

    def check(self) -> None:
        """Raise `QueueFull` if no further batch may be registered."""
        if len(self._batches) >= self._max_unanswered:
            batches = counted(self._max_unanswered, "batch", "batches")
            raise QueueFull(f"device {self._device_id!r} has left {batches} of commands unanswered: nothing was sent")

    def register(self, response_id: str, session_id: str, commands: Sequence[Command]) -> Batch:
        """Register a batch. The caller must `abandon` it, however its wait ends."""
        self.check()
        batch = Batch(response_id, session_id, commands, trio.open_memory_channel(1))
        self._batches[response_id] = batch
        return batch

    def abandon(self, batch: Batch) -> None:
        """Remove a batch that is no longer waited for."""
        self._batches.pop(batch.response_id, None)

    def close(self, error: Callable[[], Exception]) -> None:
        """Fail every pending batch with an exception of its own, because the device has disconnected."""
        batches = list(self._batches.values())
        self._batches.clear()
        for batch in batches:
            batch.deliver(error())

    def route(self, message: ClientMessage) -> bool:
        """Deliver results to their batch. Returns whether one was pending.

        A batch accepts results of its own session only, and only once.
        """
        batch = self._take(message.prev_response_id, message.session_id)
        if batch is None:
            self.unexpected_results += 1
            return False
        batch.deliver(_in_order(batch.commands, message.action_results or []))
        return True

    def route_invalid(self, invalid: InvalidMessage) -> bool:
        """Fail the batch that broken results name. Returns whether one was pending."""
        batch = self._take(invalid.response_id, invalid.session_id)
        if batch is None:
            return False
        # A new object, because the traceback of the raised one holds frames with the whole text.
        batch.deliver(
            InvalidMessage(
                f"the command results of device {self._device_id!r} are broken: {invalid}",
                type=invalid.type,
                response_id=invalid.response_id,
                session_id=invalid.session_id,
            )
        )
        return True

    def _take(self, response_id: str | None, session_id: str | None) -> Batch | None:
        batch = None if response_id is None else self._batches.get(response_id)
        if batch is None or batch.session_id != session_id:
            return None
        del self._batches[batch.response_id]
        return batch


def _in_order(commands: Sequence[Command], results: list[CommandResult]) -> list[CommandResult]:
    """Match one result to each command by call id. The first one counts; results for no command are dropped.

    If no result has a call id, the results are matched by position.
    """
    if results and all(result.call_id is None for result in results):
        by_call_id = {
            command.call_id: attrs.evolve(result, call_id=command.call_id)
            for command, result in zip(commands, results, strict=False)
        }
    else:
        by_call_id = {result.call_id: result for result in reversed(results)}
    missing = CommandResult(ResultStatus.NONE, error=NO_RESULT)
    return [by_call_id.get(command.call_id) or attrs.evolve(missing, call_id=command.call_id) for command in commands]
