"""Devices and their constellations on one server: how many tasks a second, at what cost, in how much memory."""

# matplotlib's own types say Unknown in places.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING, Final, cast

from .fleet_clients import Fleet
from .processes import running_server
from .report import print_table

if TYPE_CHECKING:
    from .effort import Effort

_DEVICES: Final = (1, 10, 100, 250)
_TIMEOUT: Final = 120.0


def _measure_once(devices: int, warm_up: float, seconds: float) -> Fleet:
    """A server of its own each time: its memory is compared with what it was before."""
    with running_server("fleet_server") as server:
        what = json.dumps([server.url, server.pid, devices, warm_up, seconds])
        command = [sys.executable, "-m", f"{__package__}.fleet_clients", what]
        completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT)
    return Fleet(*cast("tuple[int, float, float, float, float, float]", json.loads(completed.stdout)))


def _measure(rounds: int, warm_up: float, seconds: float) -> list[Fleet]:
    """The medians for each number of devices."""
    taken = {devices: [_measure_once(devices, warm_up, seconds) for _ in range(rounds)] for devices in _DEVICES}
    return [
        Fleet(devices, *(median(column) for column in list(zip(*fleets, strict=True))[1:]))
        for devices, fleets in taken.items()
    ]


def _draw(fleets: list[Fleet], path: str) -> None:
    """A chart of the throughput, as SVG."""
    # Imported where it is needed: it takes a second, and most runs draw nothing.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    places = [str(fleet.devices) for fleet in fleets]
    bars = axes.bar(places, [fleet.tasks_per_second for fleet in fleets], width=0.6, color="#3465a4")
    axes.bar_label(bars, fmt="{:,.0f}", padding=2)
    axes.set_xlabel("devices, each with a constellation that keeps one task on it")
    axes.set_ylabel("tasks per second, all together")
    axes.set_title("Throughput of one server: a task is one command and its result", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def bench_fleet(effort: Effort, chart: str | None) -> None:
    """Tasks with a command each, over the number of devices."""
    print("\n## A fleet: each device has a constellation that keeps one task on it, of one command")
    fleets = _measure(effort.holds, effort.warm_up, effort.seconds)
    print_table(
        (
            "devices",
            "tasks/s",
            "server: µs/task",
            "clients: µs/task",
            "server: KiB/connection",
            "clients: KiB/connection",
        ),
        (
            (
                f"{fleet.devices}",
                f"{fleet.tasks_per_second:,.0f}",
                f"{fleet.server_cpu * 1e6:.0f}",
                f"{fleet.clients_cpu * 1e6:.0f}",
                f"{fleet.server_memory / 1024:.0f}",
                f"{fleet.clients_memory / 1024:.0f}",
            )
            for fleet in fleets
        ),
    )
    if chart is not None:
        _draw(fleets, chart)
