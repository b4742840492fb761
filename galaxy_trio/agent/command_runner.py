"""One command, to its result: whatever its tool does, the device lives on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._codec.codec import decode_value, encode_value
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency.background import split_cancelled
from galaxy_trio.agent.thread_limiter import current_threads
from galaxy_trio.errors import InvalidMessage, ToolError
from galaxy_trio.messages import JSON, Command, CommandResult, ResultStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from galaxy_trio.agent.thread_limiter import ToolThreads
    from galaxy_trio.agent.tools import Tool, ToolSource

logger: Final = logging.getLogger(__name__)

_LONGEST: Final = 500
"""Characters that an error's line may have."""
_SCALARS: Final = (str, int, float, bool, type(None))


class Toolbox:
    """The tools of a device.

    Args:
        tools: By name.
        sources: Where further ones come from; those of `tools` go first.
        threads: For tools that are not async.
        max_message_size: Bytes that no result can be above.
    """

    def __init__(
        self, tools: Mapping[str, Tool], sources: Iterable[ToolSource], threads: ToolThreads, max_message_size: int
    ) -> None:
        self._tools = tools
        self._sources = tuple(sources)
        self._threads = threads
        self._max_message_size = max_message_size

    def find(self, name: str) -> Tool | None:
        """The tool of this name that there is now."""
        tool = self._tools.get(name)
        if tool is not None:
            return tool
        for source in self._sources:
            try:
                for offered in source.tools():
                    if offered.name == name:
                        return offered
            except Exception:
                # One that is broken takes no other's tools with it.
                logger.exception("%r does not tell its tools", source)
        return None

    async def run(self, command: Command) -> CommandResult:
        """Run a command, within its tool's time. Only cancellation comes out, and what ends programs."""
        await trio.lowlevel.checkpoint()
        self._threads.starved = False
        current_threads.set(self._threads)
        shown = shorten(command.tool_name)
        began = trio.current_time()
        try:
            tool = self.find(command.tool_name)
            if tool is None:
                raise ToolError(f"there is no tool {shown} on this device")
            result: object = None
            with trio.move_on_after(tool.timeout) as limit:
                result = await tool.call(command.parameters or {})
            if limit.cancelled_caught:
                raise ToolError(self._why_too_slow(shown, tool.timeout))
            sent = self._as_sent(result, shown)
            logger.info("tool %s: done in %.1f ms", shown, 1000 * (trio.current_time() - began))
            return CommandResult(ResultStatus.SUCCESS, result=sent, namespace=tool.namespace, call_id=command.call_id)
        except BaseException as error:  # noqa: BLE001  # what is not the tool's is raised again
            return failure(command, _told(error, shown))

    def _why_too_slow(self, shown: str, timeout: float) -> str:
        if self._threads.starved:
            return f"tool {shown} found all {self._threads.maximum} threads for tools busy for {timeout:g} s"
        return f"tool {shown} took longer than its {timeout:g} s"

    def _as_sent(self, result: object, shown: str) -> JSON:
        """The result as its reader will have it: a copy, for the tool may still change what it has returned."""
        try:
            text = encode_value(result)
        except InvalidMessage as invalid:
            raise ToolError(f"the result of tool {shown} cannot be sent: {invalid}") from None
        size = len(text) if text.isascii() else len(text.encode())
        if size > self._max_message_size:
            raise ToolError(
                f"the result of tool {shown} has {size} bytes, and a message has at most {self._max_message_size}"
            )
        return result if isinstance(result, _SCALARS) and type(result) in _SCALARS else decode_value(text)


def failure(command: Command, why: str) -> CommandResult:
    """The result of a command that came to nothing."""
    return CommandResult(ResultStatus.FAILURE, error=one_line(why), call_id=command.call_id)


def one_line(text: str) -> str:
    """A text as a line that can be sent: without line breaks and lone surrogates, and short."""
    line = " ".join(text[: 2 * _LONGEST].split()).encode(errors="backslashreplace").decode()
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _told(error: BaseException, shown: str) -> str:
    """What the peer is told of what a tool has raised. The log has the rest.

    Raises:
        BaseException: What is not the tool's: cancellation, and a KeyboardInterrupt.
    """
    cancelled, raised = split_cancelled(error)
    if raised is not None and not isinstance(raised, Exception | SystemExit):
        raise error
    if isinstance(raised, ToolError):
        logger.info("tool %s: %s", shown, raised)
    elif raised is not None:
        logger.warning("tool %s raised", shown, exc_info=raised)
    if cancelled is not None:
        raise cancelled
    return str(raised) if isinstance(raised, ToolError) else _in_words(raised)


def _in_words(error: BaseException | None) -> str:
    kind = type(error).__name__
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  # an error that cannot even say what it is
        words = ""
    return f"{kind}: {words}" if words else kind
