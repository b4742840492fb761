"""Devices and their constellations on one server: how many tasks a second, at what cost, in how much memory."""

# matplotlib's own types say Unknown in places.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .fleet_clients import Fleet

if TYPE_CHECKING:
    from collections.abc import Generator

DEVICES: Final = (1, 10, 100, 250)
_TIMEOUT: Final = 120.0


class _Server(NamedTuple):
    url: str
    pid: int


@contextmanager
def _running_server() -> Generator[_Server]:
    command = [sys.executable, "-m", f"{__package__}.fleet_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout is not None else ""
            if not url:
                raise RuntimeError("the server did not start")
            yield _Server(url, process.pid)
        finally:
            process.kill()


def _measure_once(devices: int, warm_up: float, seconds: float) -> Fleet:
    """A server of its own each time: its memory is compared with what it was before."""
    with _running_server() as server:
        what = json.dumps([*server, devices, warm_up, seconds])
        command = [sys.executable, "-m", f"{__package__}.fleet_clients", what]
        completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT)
    return Fleet(*cast("tuple[int, float, float, float, float, float]", json.loads(completed.stdout)))


def measure_fleets(rounds: int, warm_up: float, seconds: float) -> list[Fleet]:
    """The medians for each number of devices."""
    taken = {devices: [_measure_once(devices, warm_up, seconds) for _ in range(rounds)] for devices in DEVICES}
    return [
        Fleet(devices, *(median(column) for column in list(zip(*fleets, strict=True))[1:]))
        for devices, fleets in taken.items()
    ]


def draw(fleets: list[Fleet], path: str) -> None:
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
