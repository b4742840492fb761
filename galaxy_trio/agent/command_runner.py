"""Runs commands on a device's tools. An error in a tool becomes the command's result."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._codec.codec import decode_value, encode_value
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency.background import split_cancelled
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.agent.thread_limiter import current_thread_limiter
from galaxy_trio.errors import InvalidMessage, ToolError
from galaxy_trio.messages import JSON, Command, CommandResult, ResultStatus

if TYPE_CHECKING:
    from galaxy_trio.agent.thread_limiter import ThreadLimiter
    from galaxy_trio.agent.tool_index import ToolIndex

logger: Final = logging.getLogger(__name__)

_LONGEST: Final = 500
"""Maximum number of characters in an error line."""
_SCALARS: Final = (str, float, bool, type(None))


class CommandRunner:
    """Finds a command's tool and runs it.

    Args:
        tools: The device's tools.
        threads: Threads for tools that are not async.
        max_message_size: Largest result in bytes.
    """

    def __init__(self, tools: ToolIndex, threads: ThreadLimiter, max_message_size: int) -> None:
        self._tools = tools
        self._threads = threads
        self._max_message_size = max_message_size

    async def run(self, command: Command) -> CommandResult:
        """Run a command within its tool's timeout. Raises only cancellation and KeyboardInterrupt."""
        await trio.lowlevel.checkpoint()
        self._threads.starved = False
        current_thread_limiter.set(self._threads)
        shown = shorten(command.tool_name)
        began = trio.current_time()
        namespace: str | None = None
        try:
            tool = self._tools.find(command.tool_name)
            if tool is None:
                known = did_you_mean_or_known(command.tool_name, self._tools.current())
                raise ToolError(f"there is no tool {shown} on this device{known}")
            namespace = tool.namespace
            result: object = None
            with trio.move_on_after(tool.timeout) as limit:
                result = await tool.call(command.parameters or {})
            if limit.cancelled_caught:
                raise ToolError(self._timeout_reason(shown, tool.timeout))
            sent = self._sendable(result, shown)
            logger.info("tool %s: done in %.1f ms", shown, 1000 * (trio.current_time() - began))
            return CommandResult(ResultStatus.SUCCESS, result=sent, namespace=namespace, call_id=command.call_id)
        except BaseException as error:  # noqa: BLE001  # raised again unless it comes from the tool
            return failure(command, _reason(error, shown), namespace)

    def _timeout_reason(self, shown: str, timeout: float) -> str:
        if self._threads.starved:
            return f"tool {shown} did not start within {timeout:g} s: all {self._threads.maximum} tool threads are busy"
        return f"tool {shown} took longer than {timeout:g} s"

    def _sendable(self, result: object, shown: str) -> JSON:
        """The result as the receiver will read it. A copy, because the tool may still change the object that it returned."""
        try:
            text = encode_value(result)
            size = len(text) if text.isascii() else len(text.encode())
            if size > self._max_message_size:
                raise ToolError(
                    f"the result of tool {shown} has {size} bytes: a message has at most {self._max_message_size}"
                )
            return result if isinstance(result, _SCALARS) and type(result) in _SCALARS else decode_value(text)
        except InvalidMessage as invalid:
            raise ToolError(f"the result of tool {shown} cannot be sent: {invalid}") from None


def failure(command: Command, why: str, namespace: str | None = None) -> CommandResult:
    """The result of a command that failed, with the reason on one line, and its tool's namespace if there is such a tool."""
    return CommandResult(ResultStatus.FAILURE, error=one_line(why), namespace=namespace, call_id=command.call_id)


def one_line(text: str) -> str:
    """Shorten a text to one line that can be sent, without line breaks and lone surrogates."""
    line = " ".join(text[: 2 * _LONGEST].split()).encode(errors="backslashreplace").decode()
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _reason(error: BaseException, shown: str) -> str:
    """The server's view of a tool's exception. The log has the traceback.

    Raises:
        BaseException: The exception is not the tool's: cancellation or KeyboardInterrupt.
    """
    cancelled, raised = split_cancelled(error)
    if raised is not None and not isinstance(raised, Exception | SystemExit):
        raise error
    reason = _describe(raised)
    if isinstance(raised, ToolError):
        logger.info("tool %s: %s", shown, one_line(reason))
    elif raised is not None:
        logger.warning("tool %s raised", shown, exc_info=raised)
    if cancelled is not None:
        raise cancelled
    return reason


def _describe(error: BaseException | None) -> str:
    """The text of a `ToolError`; the type and text of any other exception."""
    kind = type(error).__name__
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  # a tool's exception may have a `__str__` that raises
        words = ""
    if words and isinstance(error, ToolError):
        return words
    return f"{kind}: {words}" if words else kind
