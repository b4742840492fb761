"""``galaxy-trio tools``: the tools of a device, as a table."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import click
from rich.cells import cell_len
from rich.text import Text

from galaxy_trio._cli.destination import Destination, destination_options
from galaxy_trio._cli.options import json_option, seconds, verbose
from galaxy_trio._cli.signals import run_trio
from galaxy_trio._cli.table import Column, cell, lay_out, note
from galaxy_trio._cli.terminal import echo, echo_json, open_console
from galaxy_trio._codec.strict_types import Mismatch
from galaxy_trio._codec.tool_list import read_tools
from galaxy_trio.errors import TaskFailed

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON, ToolInfo

logger: Final = logging.getLogger(__name__)

_REQUEST: Final = "list_tools"
_PARAMETERS: Final = 30
"""Cells of the column of parameters."""
_NAMESPACE: Final = Column("namespace", widest=20, optional=True)
_COLUMNS: Final = (
    Column("tool"),
    _NAMESPACE,
    Column("type", widest=15, optional=True),
    Column("parameters", widest=_PARAMETERS, fill=True),
)


async def list_tools(destination: Destination, timeout: float) -> list[ToolInfo]:
    """Ask for a device's tools with a task, which `galaxy-trio server` runs as a command.

    Raises:
        TaskFailed: The device has no list of tools, or the server runs other sessions.
    """
    async with destination.connect() as connection:
        answer = (await connection.run_task(_REQUEST, timeout=timeout)).unwrap()
    try:
        return read_tools(answer, partial(logger.warning, "not shown: %s"))
    except Mismatch as wrong:
        raise TaskFailed(
            f"the server answered the task {_REQUEST!r} with something else than a list of tools: use galaxy-trio server, "
            "or a server whose session function returns the result of ServerTask.list_tools for this request"
        ) from wrong


def tools_table(tools: list[ToolInfo], width: int) -> Text:
    """Return a table of tools, none of whose lines is wider than the terminal.

    Parameters that may be left out are in brackets. Those that have no room in their column are below the tool, as is its description.
    """
    has_namespaces = len({each.namespace for each in tools}) > 1
    columns = [column for column in _COLUMNS if has_namespaces or column is not _NAMESPACE]
    parameters = [_parameters(each.input_schema or {}) for each in tools]
    rows = [
        [
            cell(each.tool_name),
            *([cell(each.namespace)] if has_namespaces else []),
            cell(each.tool_type),
            cell(shown if cell_len(shown) <= _PARAMETERS else "…"),
        ]
        for each, shown in zip(tools, parameters, strict=True)
    ]
    header, laid_out = lay_out(columns, rows, width)
    lines = [header]
    for each, shown, row in zip(tools, parameters, laid_out, strict=True):
        lines += row
        for text in (
            shown if cell_len(shown) > _PARAMETERS else "",
            _first_paragraph(each.description or each.title or ""),
        ):
            lines += note(text, width) if text else []
    return Text("\n").join(lines)


def _parameters(schema: dict[str, JSON]) -> str:
    properties, required = schema.get("properties"), schema.get("required")
    names = list(properties) if isinstance(properties, dict) else []
    needed = required if isinstance(required, list) else []
    return " ".join(name if name in needed else f"[{name}]" for name in names)


def _first_paragraph(text: str) -> str:
    return text.strip().partition("\n\n")[0]


@click.command("tools", epilog="\b\nExample:\n    galaxy-trio tools ws://127.0.0.1:5000/ws laptop")
@destination_options
@click.option(
    "--timeout", type=seconds, default=60, show_default=True, metavar="SECONDS", help="Time limit for the list."
)
@json_option
@verbose
def tools_command(destination: Destination, *, timeout: float, as_json: bool) -> int:
    """Show the tools of DEVICE: their names, parameters and purposes.

    Parameters in brackets may be left out. --json also prints the schemas. This needs a server that runs the task "list_tools" as a
    command, as galaxy-trio server does.
    """
    tools = run_trio(partial(list_tools, destination, timeout))
    if as_json:
        echo_json([attrs.asdict(each, recurse=False) for each in tools])
    elif tools:
        console = open_console()
        console.print(tools_table(tools, console.width), soft_wrap=True)
    else:
        echo(f"{destination.device_id} has no tools")
    return 0
