"""Simulate any number of seeds: ``nox -s simulate -- --seeds 1000``. Stops at the first broken promise, with status 1."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable  # attrs reads annotations at run time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from tests.simulation.cluster.run import ClusterSimulation, simulate_cluster
from tests.simulation.graphs.run import GraphSimulation, simulate_graph
from tests.simulation.run import Run, simulate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

AnyRun: TypeAlias = Run | GraphSimulation | ClusterSimulation
_EVERY: Final = 10.0
"""Seconds between two progress lines."""


@attrs.frozen
class Summary:
    """The counts of a run, and a report if a promise was broken."""

    seed: int
    report: str
    counts: Counter[str]


def summary_of(run: AnyRun) -> Summary:
    """The summary of a run."""
    counts = _counts_of(run) if isinstance(run, Run) else run.counts
    return Summary(run.plan.seed, report_of(run) if run.broken else "", counts)


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


@attrs.frozen
class _Subject:
    """What is simulated: its option, and how a seed of it is carried out."""

    option: str
    simulate: Callable[[int], AnyRun]

    def summary(self, seed: int) -> Summary:
        """Carry out the plan of one seed."""
        return summary_of(self.simulate(seed))


_CONNECTIONS: Final = _Subject("", simulate)
_SUBJECTS: Final = {
    "graphs": _Subject("--graphs ", simulate_graph),
    "cluster": _Subject("--cluster ", simulate_cluster),
}
_OPTIONS: Final = {Run: _CONNECTIONS, GraphSimulation: _SUBJECTS["graphs"], ClusterSimulation: _SUBJECTS["cluster"]}


@contextmanager
def _summaries_of(subject: _Subject, seeds: range, jobs: int) -> Generator[Iterable[Summary]]:
    """Carry out the plans in so many processes; in this one if it is one."""
    if jobs == 1:
        yield map(subject.summary, seeds)
    else:
        with multiprocessing.Pool(jobs) as pool:
            yield pool.imap_unordered(subject.summary, seeds, chunksize=4)


def report_of(run: AnyRun) -> str:
    """Report the broken promises, the plan, and the command that repeats the run."""
    option = _OPTIONS[type(run)].option
    return "\n".join(
        [
            str(run.plan),
            "",
            *(f"BROKEN: {promise}" for promise in run.broken),
            "",
            f"again:        nox -s simulate -- {option}--first-seed {run.plan.seed} --seeds 1",
            f"with journal: nox -s simulate -- {option}--first-seed {run.plan.seed} --seeds 1 --journal",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--graphs", action="store_const", const="graphs", dest="subject", help="simulate task graphs")
    what.add_argument(
        "--cluster", action="store_const", const="cluster", dest="subject", help="simulate daemons on one database"
    )
    parser.add_argument("--seeds", type=int, default=200, help="number of seeds (200)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="concurrent processes")
    parser.add_argument("--journal", action="store_true", help="print the journals")
    options = parser.parse_args(arguments)
    subject = _SUBJECTS.get(options.subject, _CONNECTIONS)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.journal:
        for seed in seeds:
            print(subject.simulate(seed).journal)
    began = printed_at = time.perf_counter()
    counts: Counter[str] = Counter()
    with _summaries_of(subject, seeds, options.jobs) as summaries:
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
