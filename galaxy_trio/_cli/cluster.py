"""``galaxy-trio cluster``: the daemons that share a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from galaxy_trio._cli.daemon_reading import unreadable
from galaxy_trio._cli.options import json_option
from galaxy_trio._cli.table import Column, cell, lay_out
from galaxy_trio._cli.task import Daemon, daemon_options
from galaxy_trio._cli.terminal import echo_json, open_console
from galaxy_trio._cli.times import duration, seconds_between
from galaxy_trio._counted import counted

if TYPE_CHECKING:
    from rich.text import Text

    from galaxy_trio.messages import JSON

_COLUMNS: Final = (
    Column("daemon"),
    Column("state", widest=24),
    Column("devices", right=True, widest=7),
    Column("running", right=True, widest=7),
    Column("started", right=True, widest=12, optional=True),
    Column("url", optional=True, widest=60),
)


@click.group("cluster")
def cluster_command() -> None:
    """Show and drain the daemons that share a PostgreSQL database. Any of them answers for all."""


@cluster_command.command("status", epilog="\b\nExample:\n    galaxy-trio cluster status --url http://127.0.0.1:8765")
@json_option
@daemon_options
def status_command(daemon: Daemon, *, as_json: bool) -> int:
    """Show the daemons, their devices and their tasks.

    Each one has its lease, the number of devices that it owns and the number of tasks that it runs. Those that died within a day are shown
    as well.
    """
    with daemon.client() as client:
        found = client.request("GET", "/cluster")
    if as_json:
        echo_json(found)
        return 0
    daemons, count, unowned = found.get("daemons"), found.get("devices"), found.get("unowned")
    if not (isinstance(daemons, list) and isinstance(count, int) and isinstance(unowned, int)):
        raise unreadable(client.shown, "a cluster that cannot be read")
    console = open_console()
    shown = [_cells(entry, found.get("now")) for entry in daemons if isinstance(entry, dict)]
    header, rows = lay_out(_COLUMNS, shown, console.width)
    for line in (header, *(line for row in rows for line in row)):
        console.print(line)
    devices = counted(count, "device")
    console.print(cell(f"{devices}, of which {unowned} have no owner at the moment" if unowned else devices, "dim"))
    return 0


@cluster_command.command("drain", epilog="\b\nExample:\n    galaxy-trio cluster drain desk-2")
@click.argument("name")
@json_option
@daemon_options
def drain_command(daemon: Daemon, *, name: str, as_json: bool) -> int:
    """Let a daemon give its devices to the others.

    It takes none until it is restarted, and continues to answer requests.
    """
    with daemon.client() as client:
        found = client.request("POST", f"/cluster/{quote(name, safe='')}/drain")
    if as_json:
        echo_json(found)
    else:
        open_console().print(cell(f"daemon {name} releases its devices; see galaxy-trio cluster status"))
    return 0


def _cells(daemon: dict[str, JSON], now: JSON) -> list[Text]:
    # The clock of the database, by which leases are counted, not that of this machine.
    started = seconds_between(daemon.get("started"), now)
    name = str(daemon.get("name"))
    return [
        cell(f"{name} (answers)" if daemon.get("answers") else name),
        _state(daemon, now),
        cell(str(daemon.get("devices"))),
        cell(str(daemon.get("running"))),
        cell("-" if started is None else f"{duration(started)} ago"),
        cell(str(daemon.get("url") or "-")),
    ]


def _state(daemon: dict[str, JSON], now: JSON) -> Text:
    gone, left = seconds_between(daemon.get("died"), now), seconds_between(now, daemon.get("expires"))
    if gone is not None:
        return cell(f"gone for {duration(gone)}", "red")
    if left is None:
        return cell("alive", "green")
    if left < 0:
        return cell(f"lease over for {duration(-left)}", "yellow")
    state = "draining" if daemon.get("draining") else "alive"
    return cell(f"{state}, lease {duration(left)}", "green")
