"""``galaxy-trio devices``: the status of a constellation's devices."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio
from rich.live import Live

from galaxy_trio._cli.devices_table import REASON_LENGTH, devices_table
from galaxy_trio._cli.options import json_option, seconds, verbose
from galaxy_trio._cli.signals import run_service, run_trio
from galaxy_trio._cli.terminal import echo, echo_json, open_console
from galaxy_trio._cli.times import duration
from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio._connection.options import ConnectionOptions
from galaxy_trio._counted import counted
from galaxy_trio._printable import one_line
from galaxy_trio.constellation.config import ConstellationConfig, read_config
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import (
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    EventsLost,
)

if TYPE_CHECKING:
    from rich.console import Console

_REFRESH_INTERVAL: Final = 0.5
"""Seconds between two updates of the live table."""
_JSON_INTERVAL: Final = 1.0
"""The shortest time in seconds between two JSON objects."""
_NOT_CONNECTED: Final = 3
"""The exit status if a device is not connected."""


def _print_once(constellation: Constellation, console: Console, *, as_json: bool) -> None:
    statistics = constellation.statistics()
    if as_json:
        echo_json(unstructure_statistics(statistics))
    else:
        console.print(devices_table(list(statistics.devices.values()), width=console.width), soft_wrap=True)


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
            live.update(devices_table(devices, width=console.width, rows=console.height - 1), refresh=True)
            await trio.sleep(_REFRESH_INTERVAL)


async def _print_changes(constellation: Constellation) -> None:
    async with constellation.subscribe() as events:
        async for event in events:
            line = line_of(event)
            if line is not None:
                echo(f"{datetime.now().astimezone():%H:%M:%S} {one_line(line)}")


def line_of(event: object) -> str | None:
    """Describe an event of a device, or lost events, in a sentence; None for an event that is not shown."""
    match event:
        case DeviceConnected():
            return f"{event.device_id} is connected"
        case DeviceDisconnected():
            left = None if event.next_try is None else (event.next_try - datetime.now(UTC)).total_seconds()
            again = "" if left is None else f" (retry in {duration(left)})"
            return f"{event.device_id} is not connected: {event.reason[:REASON_LENGTH]}{again}"
        case DeviceFailed():
            return f"{event.device_id} failed: {event.reason[:REASON_LENGTH]}"
        case DeviceNeedsAttention():
            return f"{event.device_id} needs attention: {event.reason[:REASON_LENGTH]}"
        case EventsLost():
            return f"{counted(event.count, 'change')} not shown: they came faster than they could be printed"
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
