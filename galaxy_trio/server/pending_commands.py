"""What devices were told to do and have not answered: each batch of commands waits for its own results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from galaxy_trio.errors import InvalidMessage, QueueFull
from galaxy_trio.messages import Command, CommandResult, ResultStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.messages import ClientMessage

MAX_UNANSWERED: Final = 1_000
"""Batches that one device may have left unanswered."""
NO_RESULT: Final = "the device sent no result for this command"

_Answer: TypeAlias = "list[CommandResult] | Exception"


@attrs.frozen(eq=False)
class Batch:
    """Commands on their way. Made by `UnansweredCommands.register`."""

    response_id: str
    session_id: str
    commands: Sequence[Command]
    _channel: tuple[trio.MemorySendChannel[_Answer], trio.MemoryReceiveChannel[_Answer]]

    async def receive(self) -> list[CommandResult]:
        """Wait for the results, in the order of the commands, one for each.

        Raises:
            InvalidMessage: They came broken.
            Exception: What `UnansweredCommands.close` was given: the device has gone.
        """
        answer = await self._channel[1].receive()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def deliver(self, answer: _Answer) -> None:
        """Give it its answer, once. Never blocks: the buffer holds it."""
        self._channel[0].send_nowait(answer)


class UnansweredCommands:
    """The batches of one device that it has not answered. Pure but for the channel that each waits on.

    Args:
        device_id: Whose they are, for error messages.
        max_unanswered: How many there may be.
    """

    def __init__(self, device_id: str, max_unanswered: int = MAX_UNANSWERED) -> None:
        self._device_id = device_id
        self._max_unanswered = max_unanswered
        self._batches: dict[str, Batch] = {}
        self.unexpected_results: int = 0
        """Results that nobody waited for: late ones, duplicates, for an unknown batch or another's session."""

    def __len__(self) -> int:
        return len(self._batches)

    def check(self) -> None:
        """Raise `QueueFull` if there may be no more."""
        if len(self._batches) >= self._max_unanswered:
            raise QueueFull(
                f"device {self._device_id!r} has left {self._max_unanswered} batches of commands unanswered: nothing was sent"
            )

    def register(self, response_id: str, session_id: str, commands: Sequence[Command]) -> Batch:
        """Make a batch that can be answered; whoever awaits it must `forget` it on every way out."""
        self.check()
        batch = Batch(response_id, session_id, commands, trio.open_memory_channel(1))
        self._batches[response_id] = batch
        return batch

    def forget(self, batch: Batch) -> None:
        """Nobody waits for it any more."""
        self._batches.pop(batch.response_id, None)

    def close(self, error: Callable[[], Exception]) -> None:
        """The device has gone: all who wait are told, each with a fresh exception. Its sessions, which could ask for more, end with it."""
        batches = list(self._batches.values())
        self._batches.clear()
        for batch in batches:
            batch.deliver(error())

    def route(self, message: ClientMessage) -> bool:
        """Give results to the batch that they answer; whether there was one.

        Only results for the batch's own session count. A batch is answered once.
        """
        batch = self._take(message.prev_response_id, message.session_id)
        if batch is None:
            self.unexpected_results += 1
            return False
        batch.deliver(_in_order(batch.commands, message.action_results or []))
        return True

    def route_invalid(self, invalid: InvalidMessage) -> bool:
        """End the batch that broken results name; whether there was one."""
        batch = self._take(invalid.response_id, invalid.session_id)
        if batch is None:
            return False
        # A fresh object: the one that was raised has frames in its traceback, and they hold the whole text.
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
    """One result for each command, found by its call id; the first counts, and what is for no command is dropped.

    Results without any call id are taken in the order in which they came.
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
