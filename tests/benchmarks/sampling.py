"""A sampling profiler for the client's process: where its CPU time goes, in microseconds per request.

A tracing profiler makes calls of Python functions several times as expensive as they are, and there are some hundred per request. This
one looks at the stack on a timer of CPU time, as often as the kernel lets it.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from .meter import Plan, Rate

_INTERVAL: Final = 0.001


class Line(NamedTuple):
    """One line of a profile; the times are microseconds of CPU per request."""

    what: str
    own: float
    within: float
    """Its own and that of all it calls."""


class Profile(NamedTuple):
    """What a profiled run has shown."""

    rate: Rate
    samples: int
    packages: list[Line]
    functions: list[Line]
    lines: list[Line]


class _Samples:
    def __init__(self) -> None:
        self.count = 0
        self.own: Counter[CodeType] = Counter()
        self.within: Counter[CodeType] = Counter()
        self.lines: Counter[tuple[CodeType, int]] = Counter()

    def take(self, _signal: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.count += 1
        self.own[frame.f_code] += 1
        seen: set[CodeType] = set()
        while frame is not None:
            if frame.f_code not in seen:
                seen.add(frame.f_code)
                self.within[frame.f_code] += 1
                self.lines[frame.f_code, frame.f_lineno] += 1
            frame = frame.f_back


def profile(measure: Callable[[Plan], Rate], plan: Plan) -> Profile:
    """Run a measurement, and look at its stack all the while: its warm-up is in the profile, and should be short."""
    samples = _Samples()
    signal.signal(signal.SIGPROF, samples.take)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
    try:
        rate = measure(plan)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    each = rate.cpu * 1e6 / max(1, samples.count)
    packages: Counter[str] = Counter()
    for code, count in samples.own.items():
        packages[_package(code)] += count
    return Profile(
        rate,
        samples.count,
        [Line(name, count * each, count * each) for name, count in packages.most_common()],
        [
            Line(_name(code, code.co_firstlineno), count * each, samples.within[code] * each)
            for code, count in samples.own.most_common(40)
        ],
        [
            Line(_name(code, number), 0.0, count * each)
            for (code, number), count in samples.lines.most_common()
            if _package(code) == "galaxy_trio"
        ][:40],
    )


def _package(code: CodeType) -> str:
    path = Path(code.co_filename)
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1]
    if "galaxy_trio" in path.parts:
        return "galaxy_trio"
    if path.name.startswith("<"):
        return "generated (attrs, cattrs)"
    return "benchmark" if "benchmarks" in path.parts else path.parent.name if path.parent.name != "lib" else path.stem


def _name(code: CodeType, line: int) -> str:
    path = Path(code.co_filename)
    return f"{os.sep.join(path.parts[-2:])}:{line} {code.co_qualname}"
