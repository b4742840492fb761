"""Measure the client against a floor and a reference: ``python -m tests.benchmarks.bench``. Prints Markdown.

The peer is a process of its own, and so is each measurement of each contender, which imports nothing of the others. The contenders take
turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .constellation import measure_constellation
from .daemon import CLIENTS, DEVICES, TASKS, measure_daemon
from .event_loop import CASES
from .fleet import draw, measure_fleets
from .import_time import PACKAGE, dependencies, measure_import
from .limits import CASES as LIMITS
from .limits import measure_limit
from .machine import describe, load
from .meter import Rate
from .wire import LARGE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from .sampling import Line

CONTENDERS: Final = ("floor", "reference", "galaxy")
_BASELINES: Final = ("floor", "reference")
_RATIOS: Final = [f"galaxy / {baseline}" for baseline in _BASELINES]
IN_FLIGHT: Final = (1, 10, 100, 1_000)
_PARTS: Final = ("rates", "large", "import", "holds", "limits", "fleet", "constellation", "daemon")
_DEVICES: Final = 300
_TIMEOUT: Final = 120.0
"""Seconds that one measurement may take."""


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    warm_up: float
    seconds: float
    imports: int
    holds: int
    idle: float


FULL: Final = Effort(rounds=5, warm_up=0.7, seconds=2.0, imports=15, holds=3, idle=60)
QUICK: Final = Effort(rounds=3, warm_up=0.3, seconds=0.7, imports=5, holds=1, idle=10)


class Peer(NamedTuple):
    """The peer's process."""

    url: str
    pid: int


@contextmanager
def _running_peer() -> Generator[Peer]:
    command = [sys.executable, "-m", f"{__package__}.peer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip() if process.stdout is not None else ""
            if not url:
                raise RuntimeError("the peer did not start")
            yield Peer(url, process.pid)
        finally:
            process.kill()


def _measure(*arguments: object) -> object:
    """One measurement, in a process of its own; see measure.py."""
    command = [sys.executable, "-m", f"{__package__}.measure", json.dumps(arguments)]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT)
    return cast("object", json.loads(completed.stdout))


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print()
    print("|", " | ".join(header), "|")
    print("|", " | ".join("---" if index == 0 else "---:" for index in range(len(header))), "|")
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


def _print_targets(targets: Iterable[tuple[str, float, float, bool]]) -> None:
    _print_table(
        ("target", "wanted", "measured", "met"),
        (
            (what, f"{'≥' if at_least else '≤'} {wanted:g}", f"{measured:.2f}", _met(wanted, measured, at_least))
            for what, wanted, measured, at_least in targets
        ),
    )


def _met(wanted: float, measured: float, at_least: bool) -> str:
    return "yes" if (measured >= wanted if at_least else measured <= wanted) else "no"


def bench_machine() -> None:
    """Say what this runs on."""
    print("## Machine")
    _print_table(("what", "which"), describe())
    print(f"Load before: {load()}.")


def bench_rates(peer: Peer, effort: Effort) -> None:
    """Requests for device information: how many, and what each costs."""
    print("\n## Small requests: device information")
    rates: dict[tuple[int, str], list[Rate]] = {}
    for _ in range(effort.rounds):
        for in_flight in IN_FLIGHT:
            for contender in CONTENDERS:
                outcome = _measure("rate", contender, *peer, in_flight, effort.warm_up, effort.seconds)
                rates.setdefault((in_flight, contender), []).append(Rate(*cast("list[float]", outcome)))

    def middle(in_flight: int, contender: str) -> Rate:
        return Rate(*(median(column) for column in zip(*rates[in_flight, contender], strict=True)))

    def spread(in_flight: int, contender: str) -> str:
        cpus = sorted(rate.cpu * 1e6 for rate in rates[in_flight, contender])
        return f"{cpus[0]:.0f}-{cpus[-1]:.0f}"

    print(
        "\nRequests per second (in brackets: the share of a core that the peer took; near 100 %, the rate is the peer's)."
    )
    _print_table(
        ("in flight", *CONTENDERS, *_RATIOS),
        (
            (
                f"{in_flight:,}",
                *(
                    f"{rate.per_second:,.0f} ({rate.peer_busy:.0%})"
                    for rate in (middle(in_flight, contender) for contender in CONTENDERS)
                ),
                *(
                    f"{middle(in_flight, 'galaxy').per_second / middle(in_flight, baseline).per_second:.2f}"
                    for baseline in _BASELINES
                ),
            )
            for in_flight in IN_FLIGHT
        ),
    )
    print("Microseconds of the client's CPU time per request (in brackets: least and most of the rounds).")
    _print_table(
        ("in flight", *CONTENDERS, *_RATIOS),
        (
            (
                f"{in_flight:,}",
                *(
                    f"{middle(in_flight, contender).cpu * 1e6:.0f} ({spread(in_flight, contender)})"
                    for contender in CONTENDERS
                ),
                *(
                    f"{middle(in_flight, 'galaxy').cpu / middle(in_flight, baseline).cpu:.2f}"
                    for baseline in _BASELINES
                ),
            )
            for in_flight in IN_FLIGHT
        ),
    )
    _print_targets(
        [
            (
                "requests/s at 1 in flight, of the reference's",
                0.8,
                middle(1, "galaxy").per_second / middle(1, "reference").per_second,
                True,
            ),
            (
                "CPU per request at 100 in flight, of the floor's",
                2.2,
                middle(100, "galaxy").cpu / middle(100, "floor").cpu,
                False,
            ),
        ]
    )


def bench_large_result(peer: Peer, effort: Effort) -> None:
    """A task's result of 64 MiB."""
    print("\n## A task's result of 64 MiB, one string")
    times: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    # Each takes but half a second, and they differ more than the contenders do.
    for _ in range(4 * effort.rounds):
        for contender in CONTENDERS:
            times[contender].append(cast("float", _measure("large", contender, peer.url)))
    speeds = {contender: LARGE / 1e6 / median(taken) for contender, taken in times.items()}
    _print_table(
        ("", *CONTENDERS),
        [
            ("MB/s", *(f"{speed:.0f}" for speed in speeds.values())),
            ("least-most", *(f"{LARGE / 1e6 / max(t):.0f}-{LARGE / 1e6 / min(t):.0f}" for t in times.values())),
        ],
    )
    _print_targets([("MB/s of a 64 MiB result, of the reference's", 1.0, speeds["galaxy"] / speeds["reference"], True)])


def bench_import(effort: Effort) -> None:
    """The import, over that of its dependencies."""
    print("\n## Import")
    modules = dependencies()
    alone: list[float] = []
    whole: list[float] = []
    for _ in range(effort.imports):
        alone.append(measure_import(modules))
        whole.append(measure_import([PACKAGE]))
    _print_table(
        ("import of", "ms"),
        [
            ("its dependencies alone", f"{median(alone) * 1e3:.0f}"),
            (PACKAGE, f"{median(whole) * 1e3:.0f}"),
        ],
    )
    print(f"The dependencies: {', '.join(modules)}.")
    _print_targets([("import, of the dependencies'", 1.3, median(whole) / median(alone), False)])


def bench_holds(peer: Peer, effort: Effort) -> None:
    """The time for which a message at the limit holds the event loop."""
    print("\n## The longest step of the event loop while a message at the limit of 100 MiB passes")
    rows: list[tuple[str, str]] = []
    for case in CASES:
        holds = [cast("float", _measure("hold", peer.url, case)) for _ in range(effort.holds)]
        rows.append((case, f"{median(holds):.2f}"))
    _print_table(("what", "s"), rows)


def bench_limits(effort: Effort) -> None:
    """What is large, many or long."""
    print("\n## Limits")
    rows: list[tuple[str, str, str]] = []
    for case in LIMITS:
        figures = measure_limit(case, effort.holds, _running_peer)
        rows += [(figure.what, figure.unit, f"{figure.value:,.{figure.digits}f}") for figure in figures]
    _print_table(("what", "unit", "measured"), rows)


def bench_daemon() -> None:
    """What the daemon does with many tasks."""
    print(f"\n## The daemon: {TASKS:,} tasks for {DEVICES} devices, over its Unix socket\n")
    daemon = measure_daemon()
    print("| | |\n| --- | ---: |")
    print(f"| accepted, {CLIENTS} clients | {daemon.submit_rate:,.0f} a second |")
    print(f"| until it is on disk and told, median of {CLIENTS} clients | {daemon.submit_median * 1e3:.1f} ms |")
    print(f"| the slowest of a hundred | {daemon.submit_slowest * 1e3:.1f} ms |")
    print(f"| the median of one client alone | {daemon.alone * 1e3:.1f} ms |")
    print(f"| memory of a task that waits | {daemon.memory / 1024:.1f} KiB |")
    print(f"| memory of the daemon with all of them | {daemon.resident / 2**20:.0f} MiB |")
    print(f"| killed with all of them, until the next one listens | {daemon.restart:.1f} s |")
    print(f"| ended, each on a connection of its own | {daemon.run_rate:,.0f} a second |")


def bench_fleet(effort: Effort, chart: str | None) -> None:
    """Tasks with a command each, over the number of devices."""
    print("\n## A fleet: each device has a constellation that keeps one task on it, of one command")
    fleets = measure_fleets(effort.holds, effort.warm_up, effort.seconds)
    _print_table(
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
        draw(fleets, chart)


def bench_constellation(effort: Effort) -> None:
    """Many devices kept connected, and a server that goes and comes back."""
    print("\n## A constellation: devices that are kept connected, with a heartbeat every 30 s each")
    kept = measure_constellation(_DEVICES, effort.idle)
    _print_table(
        ("devices", "what", "measured"),
        (
            (f"{kept.devices}", "time to connect all", f"{kept.connect:.2f} s"),
            ("", "memory for each", f"{kept.memory / 1024:.0f} KiB"),
            ("", f"CPU while idle, over {effort.idle:g} s", f"{kept.idle_cpu * 100:.2f} % of a core"),
            ("", "server away for 2 s: half of them connected again after", f"{kept.half:.1f} s"),
            ("", "all connected again after", f"{kept.storm:.1f} s"),
            ("", "CPU time for that, and for 600 tasks that had waited", f"{kept.storm_cpu:.2f} s"),
            ("", "running tasks that were told of the loss", f"{kept.lost}"),
            ("", "queued tasks that ran afterwards", f"{kept.run_after}"),
            ("", "queued tasks that were lost", f"{kept.missing}"),
        ),
    )


def print_profile(peer: Peer, contender: str, in_flight: int, seconds: float) -> None:
    """Where the client's CPU time goes."""
    outcome = _measure("profile", contender, *peer, in_flight, 0.2, seconds)
    rate, samples, *tables = cast("tuple[list[float], int, list[Line], list[Line], list[Line]]", outcome)
    per_second, cpu, _ = rate
    print(f"\n## Profile of {contender} at {in_flight} in flight: µs of CPU per request, of {cpu * 1e6:.0f} in all")
    print(f"\n{samples:,} samples; {per_second:,.0f} requests/s while sampled.")
    headers = (
        ("package", "own", "own"),
        ("function", "own", "with all it calls"),
        ("line of the package", "", "with all it calls"),
    )
    for header, table in zip(headers, tables, strict=True):
        _print_table(header, ((what, f"{own:.1f}", f"{within:.1f}") for what, own, within in table))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", choices=_PARTS, action="append", help="not all of it")
    parser.add_argument("--chart", metavar="FILE", help="draw the fleet's throughput into an SVG file")
    parser.add_argument("--profile", action="store_true", help="show where the CPU time goes instead")
    parser.add_argument("--contender", choices=CONTENDERS, default="galaxy", help="which one to profile")
    parser.add_argument("--in-flight", type=int, default=100, help="requests in flight while profiling")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    only = cast("list[str] | None", arguments.only) or _PARTS
    began = time.monotonic()
    with _running_peer() as peer:
        if arguments.profile:
            print_profile(peer, arguments.contender, arguments.in_flight, 10 * effort.seconds)
            return
        bench_machine()
        if "rates" in only:
            bench_rates(peer, effort)
        if "large" in only:
            bench_large_result(peer, effort)
        if "import" in only:
            bench_import(effort)
        if "holds" in only:
            bench_holds(peer, effort)
    if "limits" in only:
        bench_limits(effort)
    if "constellation" in only:
        bench_constellation(effort)
    if "daemon" in only:
        bench_daemon()
    if "fleet" in only:
        bench_fleet(effort, arguments.chart)
    print(f"\nTook {time.monotonic() - began:.0f} s. Load after: {load()}.")


if __name__ == "__main__":
    main()
