"""``galaxy-trio tools``: the tools of a device, as a table."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import click
from rich.table import Table
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
_NAME_WIDTH: Final = 24
_TEXT_WIDTH: Final = 20


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


def tools_table(tools: list[ToolInfo], width: int) -> Table | Text:
    """Return a table of tools: parameters that may be left out are in brackets. In a narrow terminal, texts are below their tools."""
    titles = ["tool", *(["namespace"] if len({each.namespace for each in tools}) > 1 else []), "type"]
    cells = [[cell(each.tool_name), cell(each.namespace), cell(each.tool_type)] for each in tools]
    if len(titles) < len(cells[0]):
        cells = [[name, kind] for name, _, kind in cells]
    texts = [
        [cell(_parameters(each.input_schema or {})), cell(_first_line(each.description or each.title or ""))]
        for each in tools
    ]
    every_title = [*titles, "parameters", "description"]
    every_row = [[*row, *both] for row, both in zip(cells, texts, strict=True)]
    least = [
        min(max(len(title), *(each.cell_len for each in column)), _NAME_WIDTH if title in titles else _TEXT_WIDTH)
        for title, column in zip(every_title, zip(*every_row, strict=True), strict=True)
    ]
    if sum(least) + 2 * (len(least) - 1) > width:
        columns = [Column("tool"), *(Column(title, optional=True, widest=30) for title in titles[1:])]
        header, rows = lay_out(columns, cells, width)
        lines = [header]
        for row, both in zip(rows, texts, strict=True):
            lines += [*row, *(line for text in both if text.plain for line in note(text.plain, width))]
        return Text("\n").join(lines)
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for title, narrowest in zip(every_title, least, strict=True):
        # Whole names, because commands need them.
        table.add_column(title, overflow="fold", min_width=narrowest)
    for row in every_row:
        table.add_row(*row)
    return table


def _parameters(schema: dict[str, JSON]) -> str:
    properties, required = schema.get("properties"), schema.get("required")
    names = list(properties) if isinstance(properties, dict) else []
    needed = required if isinstance(required, list) else []
    return " ".join(name if name in needed else f"[{name}]" for name in names)


def _first_line(text: str) -> str:
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
        console.print(tools_table(tools, console.width))
    else:
        echo(f"{destination.device_id} has no tools")
    return 0
