"""What a process of the soak uses over time, and whether that grows."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

import attrs
import psutil
import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIB: Final = 2**20


@attrs.frozen
class Sample:
    """What a process uses at one moment."""

    memory: float
    """Resident memory in MiB."""
    descriptors: int
    threads: int
    tasks: int
    """Trio tasks."""


@attrs.frozen
class Bound:
    """By how much a figure may grow from the third quarter to the last one."""

    share: float
    plus: float

    def allows(self, before: float, after: float) -> bool:
        """Whether the growth is within the bound."""
        return after <= before * (1 + self.share) + self.plus


BOUNDS: Final[Mapping[str, Bound]] = {
    "memory": Bound(0.05, 8),
    "descriptors": Bound(0.1, 20),
    "threads": Bound(0.1, 10),
    "tasks": Bound(0.1, 100),
}
"""Faults change the number of connections all the time, so the medians of two quarters differ by a few."""


def take_sample() -> Sample:
    """Measure this process."""
    process = psutil.Process()
    with process.oneshot():
        return Sample(
            process.memory_info().rss / MIB,
            process.num_fds(),
            process.num_threads(),
            trio.lowlevel.current_statistics().tasks_living,
        )


def _quarters(samples: Sequence[Sample], figure: str) -> list[float]:
    """The medians of a figure in the four quarters of the time."""
    values = [float(vars_of(sample)[figure]) for sample in samples]
    size = len(values) // 4
    return [median(values[quarter * size : (quarter + 1) * size]) for quarter in range(4)]


def vars_of(sample: Sample) -> dict[str, float]:
    """The figures of a sample by name."""
    return attrs.asdict(sample)


def growth_of(process: str, samples: Sequence[Sample]) -> list[str]:
    """Say which figures grew in the second half by more than `BOUNDS` allow. The first half is the warm-up."""
    problems: list[str] = []
    for figure, bound in BOUNDS.items():
        _, _, before, after = _quarters(samples, figure)
        if not bound.allows(before, after):
            problems.append(f"{figure} of the {process} grew from {before:.0f} to {after:.0f} in the second half")
    return problems


def leaks_of(process: str, idle_before: Sample, idle_after: Sample) -> list[str]:
    """Say what an idle process has more of after the load than before it. Memory and threads are kept for a while: see `growth_of`."""
    return [
        f"the idle {process} has {after:.0f} {figure} after the load, {before:.0f} before it"
        for figure in ("descriptors", "tasks")
        if (after := vars_of(idle_after)[figure]) > (before := vars_of(idle_before)[figure])
    ]


def table_of(samples: Mapping[str, Sequence[Sample]]) -> str:
    """Make a table of the medians of all processes in the four quarters."""
    rows = ["| process | figure | 1st quarter | 2nd | 3rd | 4th |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for process, taken in samples.items():
        for figure in BOUNDS:
            quarters = " | ".join(f"{value:.0f}" for value in _quarters(taken, figure))
            rows.append(f"| {process} | {figure}{' (MiB)' if figure == 'memory' else ''} | {quarters} |")
    return "\n".join(rows)
