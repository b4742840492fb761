"""``galaxy-trio devices``: the status of a constellation's devices."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio
from rich.live import Live
from rich.table import Table
from rich.text import Text

from galaxy_trio._cli.options import json_option, seconds, verbose
from galaxy_trio._cli.signals import run_service, run_trio
from galaxy_trio._cli.terminal import echo, echo_json, open_console
from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import ConstellationConfig, read_config
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import (
    CONNECTED,
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    DeviceStatus,
    EventsLost,
)

if TYPE_CHECKING:
    from rich.console import Console

    from galaxy_trio.constellation.device_statistics import DeviceStatistics
    from galaxy_trio.events import Event

_REFRESH_INTERVAL: Final = 0.5
"""Seconds between two updates of the live table."""
_JSON_INTERVAL: Final = 1.0
"""The shortest time in seconds between two JSON objects."""
_WIDE: Final = 110
"""The number of columns from which the table shows capabilities."""
_REASON_LENGTH: Final = 200
_NOT_CONNECTED: Final = 3
"""The exit status if a device is not connected."""
_COLORS: Final = {
    DeviceStatus.IDLE: "green",
    DeviceStatus.BUSY: "cyan",
    DeviceStatus.FAILED: "red",
    DeviceStatus.DISCONNECTED: "yellow",
}


def devices_table(devices: list[DeviceStatistics], *, width: int, rows: int | None = None) -> Table:
    """Return a table of the devices; its caption counts those beyond `rows`."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    table.add_column("device", no_wrap=True, overflow="ellipsis", max_width=max(width // 3, 12))
    # In the live table each device has one line, so that the number of lines is known.
    table.add_column("status", overflow="fold" if rows is None else "ellipsis", no_wrap=rows is not None, ratio=1)
    table.add_column("os", no_wrap=True, overflow="ellipsis", max_width=12)
    if width >= _WIDE:
        table.add_column("capabilities", no_wrap=True, overflow="ellipsis", max_width=width // 4)
    for title in ("tasks", "heard", "reconnects"):
        table.add_column(title, justify="right", no_wrap=True)
    shown = devices if rows is None or len(devices) <= rows else devices[: max(rows - 1, 1)]
    for device in shown:
        cells = [Text(one_line(device.device_id)), _status(device), Text(one_line(device.os or "-"))]
        if width >= _WIDE:
            cells.append(Text(one_line(", ".join(device.capabilities) or "-")))
        tasks = f"{device.running}" if not device.queued else f"{device.running}+{device.queued}"
        cells += [Text(tasks), Text(_ago(device.last_heard)), Text(str(max(device.connects - 1, 0)))]
        table.add_row(*cells)
    hidden = devices[len(shown) :]
    if hidden:
        counts = Counter(device.status.value for device in hidden)
        counted = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        table.caption = Text(f"… {len(hidden)} more: {counted}", "dim", justify="left")
    return table


def _status(device: DeviceStatistics) -> Text:
    text = Text(device.status.value, _COLORS.get(device.status, ""))
    if device.problem is not None and device.status not in CONNECTED:
        when = "" if device.next_try is None else f" (retry in {_seconds_until(device.next_try):.0f} s)"
        text.append(f": {one_line(device.problem)[:_REASON_LENGTH]}{when}", "dim")
    return text


def _ago(date: str | None) -> str:
    return "-" if date is None else f"{max(-_seconds_until(date), 0):.0f} s ago"


def _seconds_until(date: str) -> float:
    return (datetime.fromisoformat(date) - datetime.now(UTC)).total_seconds()


def _print_once(constellation: Constellation, console: Console, *, as_json: bool) -> None:
    statistics = constellation.statistics()
    if as_json:
        echo_json(unstructure_statistics(statistics))
    else:
        console.print(devices_table(list(statistics.devices.values()), width=console.width))


async def show_once(config: ConstellationConfig, timeout: float, console: Console, *, as_json: bool) -> int:
    """Wait until each device is connected or an attempt has failed, and print the table. Return 3 if a device is not connected."""
    async with open_constellation(config, options=ConnectionOptions(proxy=True)) as constellation:
        devices = [device for device in constellation.devices.values() if device.config.auto_connect]
        with trio.move_on_after(timeout):
            await _wait_attempted(constellation, {device.device_id for device in devices})
        _print_once(constellation, console, as_json=as_json)
        return 0 if all(device.connected for device in devices) else _NOT_CONNECTED


async def _wait_attempted(constellation: Constellation, device_ids: set[str]) -> None:
    """Wait until each device is connected or an attempt has failed."""
    async with constellation.subscribe() as events:
        while device_ids:
            event = await anext(events)
            if isinstance(event, DeviceConnected | DeviceDisconnected | DeviceFailed):
                device_ids.discard(event.device_id)


async def watch(config: ConstellationConfig, console: Console, as_json: bool, stop: trio.Event) -> None:
    """Show the devices until `stop` is set: as a live table, in a pipe as lines, or as JSON."""
    async with (
        open_constellation(config, options=ConnectionOptions(proxy=True)) as constellation,
        trio.open_nursery() as nursery,
    ):
        if as_json:
            nursery.start_soon(_print_json_changes, constellation)
        elif console.is_interactive:
            nursery.start_soon(_show_live_table, constellation, console)
        else:
            nursery.start_soon(_print_changes, constellation)
        await stop.wait()
        nursery.cancel_scope.cancel()


async def _show_live_table(constellation: Constellation, console: Console) -> None:
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            devices = list(constellation.statistics().devices.values())
            live.update(devices_table(devices, width=console.width, rows=console.height - 2), refresh=True)
            await trio.sleep(_REFRESH_INTERVAL)


async def _print_changes(constellation: Constellation) -> None:
    async with constellation.subscribe() as events:
        async for event in events:
            line = _line_of(event)
            if line is not None:
                echo(f"{datetime.now().astimezone():%H:%M:%S} {one_line(line)}")


def _line_of(event: Event | EventsLost) -> str | None:
    match event:
        case DeviceConnected():
            return f"{event.device_id} is connected"
        case DeviceDisconnected():
            again = "" if event.next_try is None else f"; retry in {_seconds_until(event.next_try.isoformat()):.0f} s"
            return f"{event.device_id} is not connected: {event.reason[:_REASON_LENGTH]}{again}"
        case DeviceFailed():
            return f"{event.device_id} failed: {event.reason[:_REASON_LENGTH]}"
        case DeviceNeedsAttention():
            return f"{event.device_id} needs attention: {event.reason[:_REASON_LENGTH]}"
        case EventsLost():
            return f"{event.count} changes are missing: they came faster than they could be printed"
        case _:
            return None


async def _print_json_changes(constellation: Constellation) -> None:
    # Each object is the whole state: a backlog of one is enough to know that it changed.
    async with constellation.subscribe(backlog=1) as events:
        while True:
            echo_json(unstructure_statistics(constellation.statistics()))
            await anext(events)
            await trio.sleep(_JSON_INTERVAL)


@click.command("devices", epilog="\b\nExample:\n    galaxy-trio devices devices.toml")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print the table once; exit with 3 if a device is not connected.")
@click.option(
    "--timeout", type=seconds, default=10, show_default=True, metavar="SECONDS",
    help="With --once: time limit for connecting.",
)  # fmt: skip
@json_option
@verbose
def devices_command(file: Path, *, once: bool, timeout: float, as_json: bool) -> int:
    """Show the status of the devices in FILE until Ctrl-C.

    Connects to them. On a terminal it shows a live table, in a pipe a line for each change. It runs no tasks.
    """
    config, console = read_config(file), open_console()
    if once:
        return run_trio(partial(show_once, config, timeout, console, as_json=as_json))
    return run_service(partial(watch, config, console, as_json))
