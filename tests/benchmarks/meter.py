"""Counting requests, and the time that they took, in the middle of a steady stream of them."""

from __future__ import annotations

import platform
import time
from typing import Final, NamedTuple

WARM_UP_TASKS: Final = 100
"""Tasks that are run before those that are counted."""


class Plan(NamedTuple):
    """What one client process is to measure."""

    url: str
    peer_pid: int
    in_flight: int
    warm_up: float
    """Seconds of requests that are not counted."""
    seconds: float
    """Seconds of those that are."""


class TaskPlan(NamedTuple):
    """What one client process is to measure of tasks."""

    url: str
    peer_pid: int
    devices: int
    tasks: int
    together: bool
    """Whether all are submitted at the same time, or each after the end of the one before."""


class Rate(NamedTuple):
    """What it has measured."""

    per_second: float
    cpu: float
    """Seconds of CPU time of the client's process per request, or per task."""
    peer_busy: float
    """The share of the time for which the peer's process had the CPU: near 1, the rate is the peer's and not the client's."""


class Mark(NamedTuple):
    """A moment in a stream of requests."""

    done: int
    wall: float
    cpu: float
    peer_cpu: float


class Meter:
    """How many requests are done; those who send them ask whether to go on."""

    def __init__(self, peer_pid: int) -> None:
        self._peer_pid = peer_pid
        self.done = 0
        self.running = True

    def mark(self) -> Mark:
        """This moment."""
        return Mark(self.done, time.perf_counter(), time.process_time(), cpu_time_of(self._peer_pid))


def rate_between(start: Mark, end: Mark) -> Rate:
    """The rate of the requests between two moments."""
    done, wall = end.done - start.done, end.wall - start.wall
    return Rate(done / wall, (end.cpu - start.cpu) / done, (end.peer_cpu - start.peer_cpu) / wall)


def cpu_time_of(pid: int) -> float:
    """Seconds of CPU time that a process has had until now."""
    if platform.system() == "Linux":
        # How clock_getcpuclockid(3) makes a process's clock of its id; Python does not have it.
        return time.clock_gettime(~pid << 3 | 2)
    return float("nan")
