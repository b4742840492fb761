"""What a process of the soak uses over time, and whether that grows."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Final

import attrs
import psutil
import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIB: Final = 2**20
_PACKAGES: Final = ("galaxy_trio.", "trio.", "trio_websocket.", "wsproto.")
_NOT_COUNTED: Final = (
    # Trio keeps a scope that has ended until its deadline.
    "trio.CancelScope",
    # How many tasks wait, and do not run, in this moment. Tasks and descriptors are counted.
    "trio._core._io_epoll.EpollWaiters",
    "trio._core._traps.WaitTaskRescheduled",
)
BLOCKS: Final = "blocks of memory"
"""The name of the number of objects and other pieces of memory that Python has allocated, as an object's class."""
_SHOWN: Final = 8
_MORE_BLOCKS: Final = 100
"""By how many blocks of memory a process may grow for each device."""


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
            problems.append(
                f"{figure} in the process of the {process} grew from {before:.0f} to {after:.0f} in the second half"
            )
    return problems


@attrs.frozen
class Idle:
    """What a process uses while nothing goes on in it.

    Attributes:
        sample: What it uses.
        objects: How many objects of each class of the package, of trio and of the WebSocket libraries there are, and `BLOCKS`.
    """

    sample: Sample
    objects: dict[str, int]


def take_idle_sample() -> Idle:
    """Measure this process, which is idle."""
    gc.collect()
    named = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    objects = {name: count for name, count in named.items() if name.startswith(_PACKAGES) and name not in _NOT_COUNTED}
    return Idle(take_sample(), {BLOCKS: sys.getallocatedblocks(), **objects})


def leaks_of(process: str, before: Idle, after: Idle, devices: int) -> list[str]:
    """Say in one line what an idle process has more of after the load than before it, the package's classes first.

    A device may have one more object of a class: the last of its kind. What is left of each task or connection is far more.
    """
    then, now = ({**vars_of(idle.sample), **idle.objects} for idle in (before, after))
    allowed = {"descriptors": 0, "threads": 0, "tasks": 0, BLOCKS: _MORE_BLOCKS * devices}
    more = {
        name: count - then.get(name, 0)
        for name, count in now.items()
        if name != "memory" and count - then.get(name, 0) > allowed.get(name, devices)
    }
    if not more:
        return []
    names = sorted(more, key=lambda name: (name not in allowed, not name.startswith("galaxy_trio."), -more[name], name))
    shown = ", ".join(f"{now[name]:,.0f} {name} ({then.get(name, 0):,.0f} before)" for name in names[:_SHOWN])
    rest = f", and more of {len(names) - _SHOWN} other classes" if len(names) > _SHOWN else ""
    return [f"the idle process of the {process} has more than before the load: {shown}{rest}"]


def table_of(samples: Mapping[str, Sequence[Sample]]) -> str:
    """Make a table of the medians of all processes in the four quarters."""
    rows = ["| process | figure | 1st quarter | 2nd | 3rd | 4th |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for process, taken in samples.items():
        for figure in BOUNDS:
            quarters = " | ".join(f"{value:.0f}" for value in _quarters(taken, figure))
            rows.append(f"| {process} | {figure}{' (MiB)' if figure == 'memory' else ''} | {quarters} |")
    return "\n".join(rows)
