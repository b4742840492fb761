"""Simulate any number of seeds: ``nox -s simulate -- --seeds 1000``. Stops at the first broken promise, with status 1."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from tests.simulation.graphs.run import GraphSimulation, simulate_graph
from tests.simulation.run import Run, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

_EVERY: Final = 10.0
"""Seconds between two progress lines."""


@attrs.frozen
class Summary:
    """The counts of a run, and a report if a promise was broken."""

    seed: int
    report: str
    counts: Counter[str]


def summary_of(seed: int) -> Summary:
    """Carry out the plan of one seed."""
    run = simulate(seed)
    return Summary(seed, report_of(run) if run.broken else "", _counts_of(run))


def summary_of_graph(seed: int) -> Summary:
    """Carry out the plan of one seed of a graph."""
    run = simulate_graph(seed)
    return Summary(seed, report_of(run) if run.broken else "", run.counts)


def _counts_of(run: Run) -> Counter[str]:
    ends = run.journal.of("caller", "ends")
    endings = Counter(entry.detail.partition(":")[0] for entry in ends)
    return Counter(
        {
            "requests": len(ends),
            "faults": len(run.journal.of("world", "disturbs")),
            "completed": endings["completed"] + endings["informed"],
            "cancelled": endings["cancelled"],
            "timed out": endings["RequestTimeout"],
            "lost": endings["ConnectionLost"],
            "refused": endings["RequestRejected"],
            "events": len(run.journal.events),
        }
    )


@contextmanager
def _summaries_of(summarize: Callable[[int], Summary], seeds: range, jobs: int) -> Generator[Iterable[Summary]]:
    """Carry out the plans in so many processes; in this one if it is one."""
    if jobs == 1:
        yield map(summarize, seeds)
    else:
        with multiprocessing.Pool(jobs) as pool:
            yield pool.imap_unordered(summarize, seeds, chunksize=4)


def report_of(run: Run | GraphSimulation) -> str:
    """Report the broken promises, the plan, and the command that repeats the run."""
    graphs = "--graphs " if isinstance(run, GraphSimulation) else ""
    return "\n".join(
        [
            str(run.plan),
            "",
            *(f"BROKEN: {promise}" for promise in run.broken),
            "",
            f"again:        nox -s simulate -- {graphs}--first-seed {run.plan.seed} --seeds 1",
            f"with journal: nox -s simulate -- {graphs}--first-seed {run.plan.seed} --seeds 1 --journal",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--graphs", action="store_true", help="simulate task graphs")
    parser.add_argument("--seeds", type=int, default=200, help="number of seeds (200)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="concurrent processes")
    parser.add_argument("--journal", action="store_true", help="print the journals")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.journal:
        for seed in seeds:
            print((simulate_graph if options.graphs else simulate)(seed).journal)
    began = printed_at = time.perf_counter()
    counts: Counter[str] = Counter()
    with _summaries_of(summary_of_graph if options.graphs else summary_of, seeds, options.jobs) as summaries:
        for count, summary in enumerate(summaries, 1):
            counts += summary.counts
            if summary.report:
                print(summary.report)
                return 1
            if time.perf_counter() > printed_at + _EVERY:
                printed_at = time.perf_counter()
                print(f"{count} of {len(seeds)} seeds", flush=True)
    totals = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} seeds in {seconds:.0f} s: {totals}. Every promise was kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
