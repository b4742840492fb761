"""The session function of ``galaxy-trio server``: runs a request as a command on the device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._codec.json_text import Unreadable, parse_in_slices
from galaxy_trio._codec.strict_types import shorten
from galaxy_trio._concurrency.slices import finish
from galaxy_trio.errors import GalaxyError, TaskFailed
from galaxy_trio.messages import JSON, Command, ResultStatus, ToolType

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask

logger: Final = logging.getLogger(__name__)

_MAX_VALUES: Final = 20_000
"""The number of values and keys of a command's parameters: each session holds its own until the device has replied."""
USAGE: Final = "write 'echo TEXT', or a tool's name and its parameters as a JSON object: TOOL {\"name\": value}"


async def run_as_command(task: ServerTask) -> object:
    """Run a task: ``echo TEXT`` returns ``{"echo": TEXT}``; ``TOOL {json}``, or ``TOOL`` alone, runs that tool on the device.

    Raises:
        TaskFailed: The request has neither form, or the command failed.
    """
    logger.info("task for %r: %s", task.device_id, shorten(task.request))
    word, *rest = task.request.split(None, 1) or [""]
    text = "".join(rest).rstrip()
    if not word:
        raise TaskFailed(f"the request is empty: {USAGE}")
    if word == "echo":
        return {"echo": text}
    command = Command(word, ToolType.ACTION, await _parameters(word, text))
    try:
        [result] = await task.execute([command])
    except GalaxyError as error:
        raise TaskFailed(str(error)) from error
    if result.status is not ResultStatus.SUCCESS:
        raise TaskFailed(
            result.error or f"the device replied with status {result.status} and gave no reason", result=result.result
        )
    return result.result


async def _parameters(name: str, text: str) -> dict[str, JSON] | None:
    if not text:
        return None
    why = ""
    try:
        value = await finish(parse_in_slices(text, _MAX_VALUES))
    except Unreadable as error:
        value, why = None, f" ({error})"
    if not isinstance(value, dict):
        raise TaskFailed(f"the text after {shorten(name)} is not a JSON object{why}: {USAGE}")
    return cast("dict[str, JSON]", value)
