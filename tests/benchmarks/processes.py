"""Processes of the benchmarks: the peer, and each measurement, on a core of its own where there are two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Generator

_TIMEOUT: Final = 600.0
"""Seconds that one measurement may take."""


_CORES: Final = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


class Core(IntEnum):
    """Which of the machine's cores a process runs on."""

    MEASURED = 0
    OTHER = -1


class Peer(NamedTuple):
    """The peer's process."""

    url: str
    pid: int


def pin(process: subprocess.Popen[str], core: Core) -> None:
    """Keep a process that has just started on one core, where the system can, so that the two do not take turns on each."""
    if sys.platform == "linux":
        os.sched_setaffinity(process.pid, {_CORES[core]})


@contextmanager
def pinned(core: Core) -> Generator[None]:
    """Keep this thread on one core, for the length of the block."""
    if sys.platform != "linux":
        yield
        return
    os.sched_setaffinity(0, {_CORES[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES)


class ServerProcess:
    """A server in a process of its own, which has printed its URL. Made by `running_server`."""

    def __init__(self, url: str, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.url = url
        self.pid = pid
        self._stdin = stdin
        self._stdout = stdout

    def write_line(self, line: str) -> None:
        """Send the server a line to its standard input."""
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def read_line(self) -> str:
        """Wait for the next line of its standard output."""
        return self._stdout.readline().strip()


@contextmanager
def running_server(module: str, *arguments: object) -> Generator[ServerProcess]:
    """Run one of these modules, a server that ends when its standard input does."""
    command = [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            pin(process, Core.OTHER)
            if process.stdin is None or process.stdout is None:
                raise RuntimeError(f"{module} has no pipes")
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{module} did not start")
            yield ServerProcess(url, process.pid, process.stdin, process.stdout)
        finally:
            process.kill()


@contextmanager
def running_peer() -> Generator[Peer]:
    """The peer, see peer.py."""
    with running_server("peer") as server:
        yield Peer(server.url, server.pid)


def measure(*arguments: object) -> object:
    """One measurement, in a process of its own; see measure.py."""
    command = [sys.executable, "-m", f"{__package__}.measure", json.dumps(arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            pin(process, Core.MEASURED)
            output, _ = process.communicate(timeout=_TIMEOUT)
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"the measurement {arguments} failed")
    return cast("object", json.loads(output))
