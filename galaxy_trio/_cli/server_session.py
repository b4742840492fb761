"""The session function of ``galaxy-trio server``: runs a request as a command on the device."""

from __future__ import annotations

import json
import logging
import re
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
USAGE: Final = (
    "write 'echo TEXT', or a tool's name and its parameters as a JSON object: TOOL {\"name\": value}; "
    'put a name with spaces in quotes: "TOOL"'
)
_ECHO: Final = "echo"
_DEVICE: Final = "device:"
"""Before the name of a device's tool, which may be that of a built-in command."""
_PROMPT: Final = re.compile(r"Task Description: (.*?)(?:\n(?:Tips for Completion:|No tips available\.).*)?", re.DOTALL)
"""The text that constellations send for a node of a task graph: its request, tips, and the results of other nodes."""


async def run_as_command(task: ServerTask) -> object:
    """Run a task: ``echo TEXT`` returns ``{"echo": TEXT}``; ``TOOL {json}``, or ``TOOL`` alone, runs that tool on the device.

    A name in quotes, as a JSON string, may contain spaces. A name in quotes, and a name after ``device:``, is always that of a tool
    on the device. Of the text for a node of a task graph, only its request is run.

    Raises:
        TaskFailed: The request has no such form, or the command failed.
    """
    logger.info("task for %r: %s", task.device_id, shorten(task.request))
    prompt = _PROMPT.fullmatch(task.request)
    request = (prompt[1] if prompt else task.request).strip()
    if not request:
        raise TaskFailed(f"the request is empty: {USAGE}")
    word, *rest = request.split(None, 1)
    if word == _ECHO:
        return {_ECHO: "".join(rest)}
    name, text = _split_name(request.removeprefix(_DEVICE))
    command = Command(name, ToolType.ACTION, await _parameters(name, text))
    try:
        [result] = await task.execute([command])
    except GalaxyError as error:
        raise TaskFailed(str(error)) from error
    if result.status is not ResultStatus.SUCCESS:
        raise TaskFailed(
            result.error or f"the device replied with status {result.status} and gave no reason", result=result.result
        )
    return result.result


def _split_name(request: str) -> tuple[str, str]:
    """Split a request into a tool's name, which may be in quotes, and the text after it."""
    if not request.startswith('"'):
        name, *rest = request.split(None, 1) or [""]
        text = "".join(rest)
    else:
        try:
            found, end = json.JSONDecoder().raw_decode(request)
        except ValueError:
            raise TaskFailed(f"the quote before the tool's name is not closed: {USAGE}") from None
        name, text = cast("str", found), request[end:].lstrip()
    if not name:
        raise TaskFailed(f"the tool's name is empty: {USAGE}")
    return name, text


async def _parameters(name: str, text: str) -> dict[str, JSON] | None:
    if not text:
        return None
    why = ""
    try:
        value = await finish(parse_in_slices(text, _MAX_VALUES, unique_keys=True))
    except Unreadable as error:
        value, why = None, f" ({error})"
    if not isinstance(value, dict):
        raise TaskFailed(f"the text after {shorten(name)} is not a JSON object{why}: {USAGE}")
    return cast("dict[str, JSON]", value)
