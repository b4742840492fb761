"""The daemon with many tasks: how fast it takes them, what each costs while it waits, how fast they run, and how long a restart takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import psutil
import trio

from .constellation import running_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

DEVICES: Final = 50
TASKS: Final = 10_000
CLIENTS: Final = 16


class Daemon(NamedTuple):
    """What was measured. Seconds and bytes."""

    submit_rate: float
    """Tasks accepted in a second, each of them on disk."""
    submit_median: float
    submit_slowest: float
    """Of a hundred."""
    alone: float
    """The median, when one client submits one after the other."""
    memory: float
    """Bytes of the daemon for a task that waits."""
    resident: float
    """Bytes of the daemon with all of them."""
    restart: float
    """From SIGKILL with all of them waiting until the next daemon listens."""
    run_rate: float
    """Tasks that ended in a second, each of them on disk three times."""


class _Client:
    """One connection, that asks one thing after the other; it costs as little as it can."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(content)}\r\n\r\n"
        await self._stream.send_all(head.encode() + content)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self._stream.receive_some()
        headers, _, rest = answer.partition(b"\r\n\r\n")
        length = int(headers.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(rest) < length:
            rest += await self._stream.receive_some()
        return cast("dict[str, Any]", json.loads(rest))


@contextmanager
def _running_daemon(directory: Path) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "galaxy_trio", "daemon", "--config", str(directory / "galaxy.toml")]
    with (
        (directory / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError((directory / "log").read_text())
            yield process
        finally:
            process.kill()


async def _submit(path: Path, numbers: Iterator[int], tasks: int, latencies: list[float]) -> None:
    async with await trio.open_unix_socket(path) as stream:
        client = _Client(stream)
        for number in numbers:
            if number >= tasks:
                return
            began = time.perf_counter()
            await client.ask("POST", "/tasks", {"request": f"0 {number}", "device": f"device_{number % DEVICES}"})
            latencies.append(time.perf_counter() - began)


async def _submit_all(path: Path, tasks: int, clients: int) -> tuple[float, list[float]]:
    latencies: list[float] = []
    numbers = count()
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(_submit, path, numbers, tasks, latencies)
    return time.perf_counter() - began, latencies


async def _occupy(path: Path) -> None:
    """A task on each device that does not end, so that all others wait."""
    async with await trio.open_unix_socket(path) as stream:
        client = _Client(stream)
        held = [
            str((await client.ask("POST", "/tasks", {"request": "1000 0", "device": f"device_{number}"}))["id"])
            for number in range(DEVICES)
        ]
        for task in held:
            while (await client.ask("GET", f"/tasks/{task}"))["state"] != "running":  # noqa: ASYNC110
                await trio.sleep(0.01)


async def _wait_all(path: Path) -> float:
    """Seconds until all have ended."""
    began = time.perf_counter()
    async with await trio.open_unix_socket(path) as stream:
        client = _Client(stream)
        for state in ("queued", "running"):
            while (await client.ask("GET", f"/tasks?state={state}&limit=1"))["tasks"]:  # noqa: ASYNC110
                await trio.sleep(0.02)
    return time.perf_counter() - began


def measure_daemon() -> Daemon:
    """Ten thousand tasks on fifty devices."""
    with tempfile.TemporaryDirectory() as name, running_server(DEVICES) as (url, _, _):
        directory = Path(name)
        path = directory / "s"
        devices = [{"device_id": f"device_{number}", "server_url": url} for number in range(DEVICES)]
        (directory / "devices.json").write_text(json.dumps({"devices": devices}))
        (directory / "galaxy.toml").write_text(f'devices = "devices.json"\nlisten = "unix:{path}"\n')
        with _running_daemon(directory) as process:
            trio.run(_occupy, path)
            _, alone = trio.run(_submit_all, path, 500, 1)
            memory = psutil.Process(process.pid).memory_info().rss
            seconds, latencies = trio.run(_submit_all, path, TASKS, CLIENTS)
            resident = psutil.Process(process.pid).memory_info().rss
            process.send_signal(signal.SIGKILL)
            process.wait()
        began = time.perf_counter()
        with _running_daemon(directory):
            restart = time.perf_counter() - began
            run = trio.run(_wait_all, path)
    return Daemon(
        submit_rate=TASKS / seconds,
        submit_median=median(latencies),
        submit_slowest=quantiles(latencies, n=100)[98],
        alone=median(alone),
        memory=(resident - memory) / TASKS,
        resident=resident,
        restart=restart,
        run_rate=(TASKS + len(alone)) / run,
    )
