"""The journals of the soak: a byte for each task at each end, and the promises that they must keep.

A byte takes the same memory whatever happens, so that the journals do not look like a leak.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pathlib import Path

MAX_TASKS: Final = 4_000_000
_SHOWN: Final = 5


class Ending(IntEnum):
    """How a call has ended."""

    NONE = 0
    COMPLETED = 1
    WRONG = 2
    """Completed with another task's result."""
    FAILED = 3
    LOST = 4
    REJECTED = 5
    TIMED_OUT = 6
    CANCELLED = 7


class Counts:
    """How often something happened to each task."""

    def __init__(self, counts: bytes = b"") -> None:
        self._counts = bytearray(counts or MAX_TASKS)

    def add(self, number: int) -> None:
        """Count one more, up to 255."""
        self._counts[number] = min(self._counts[number] + 1, 255)

    def of(self, number: int) -> int:
        """How often it happened to a task."""
        return self._counts[number]

    def total(self) -> int:
        """The number of tasks to which it happened."""
        return len(self._counts) - self._counts.count(0)

    def write(self, path: Path) -> None:
        """Write the counts to a file, for `read`."""
        path.write_bytes(self._counts)

    @classmethod
    def read(cls, path: Path) -> Counts:
        """Read a file that `write` wrote."""
        return cls(path.read_bytes())


@attrs.define
class Journals:
    """What both ends know about the tasks 0 to `submitted`.

    Attributes:
        submitted: The number of tasks that were submitted.
        endings: The `Ending` of each call.
        sessions: How often a session began, on the server.
        begun: How often a task began, on its device.
        done: How often a task was done, on its device.
    """

    submitted: int = 0
    endings: bytearray = attrs.field(factory=lambda: bytearray(MAX_TASKS))
    sessions: Counts = attrs.field(factory=Counts)
    begun: Counts = attrs.field(factory=Counts)
    done: Counts = attrs.field(factory=Counts)

    def totals(self) -> dict[str, int]:
        """The number of tasks with each ending."""
        return {ending.name.lower(): self.endings[: self.submitted].count(ending) for ending in Ending if ending}


def broken_promises(journals: Journals) -> list[str]:
    """Compare both ends: say which tasks were lost, run twice, or run although they were rejected."""
    found: dict[str, list[int]] = {}
    for number in range(journals.submitted):
        if (problem := _problem_of(journals, number)) is not None:
            found.setdefault(problem, []).append(number)
    problems = [
        f"{len(numbers):,} tasks {problem}: {', '.join(map(str, numbers[:_SHOWN]))}{' …' if len(numbers) > _SHOWN else ''}"
        for problem, numbers in found.items()
    ]
    return problems if journals.totals()["completed"] else [*problems, "no task was completed"]


def _problem_of(journals: Journals, number: int) -> str | None:
    ending, begun, done = Ending(journals.endings[number]), journals.begun.of(number), journals.done.of(number)
    if ending is Ending.NONE:
        return "have no ending"
    if begun > 1 or journals.sessions.of(number) > 1:
        return "began twice"
    if ending is Ending.WRONG:
        return "got another task's result"
    if ending is Ending.COMPLETED and (begun, done) != (1, 1):
        return "were reported as completed and were not done by their device"
    if ending is Ending.REJECTED and journals.sessions.of(number):
        return "were rejected and ran"
    return None
