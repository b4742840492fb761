"""Running the command line in tests: in this process, in this process concurrently with a test, and in another process."""

from __future__ import annotations

import functools
import io
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import attrs
import trio

from galaxy_trio import open_connection
from galaxy_trio._cli.main import run_command_line
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from types import FrameType

    import pytest

    from galaxy_trio import TaskResult

TOKEN = "s3cret-t0ken"
DEVICE = "linux_agent_1"
EXAMPLE_TOOLS = "galaxy_trio.agent.example_tools"
NO_SERVER = "ws://127.0.0.1:1"
"""The URL of a server that does not exist."""


@attrs.frozen
class Outcome:
    """A command's exit status and output."""

    status: int
    out: str
    err: str


Call: TypeAlias = Callable[..., Outcome]


def is_one_sentence(outcome: Outcome) -> bool:
    """Return whether stderr contains exactly one error and no output contains the token."""
    return outcome.err.startswith("error: ") and outcome.err.count("\n") == 1 and TOKEN not in outcome.err + outcome.out


def tool_options(*names: str) -> list[str]:
    """Return the options with which an agent offers these tools."""
    return [word for name in names for word in ("--tools", name)]


def environment() -> dict[str, str]:
    """Return a command's environment, independent of that of the tests."""
    disturbing = ("FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in disturbing}
    return {**kept, "GALAXY_TRIO_TOKEN": TOKEN, "TERM": "xterm", "PYTHONUTF8": "1"}


def set_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the environment of `environment` in this process."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs a command in this process to its end."""
    set_environment(monkeypatch)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        # A command that should fail but runs must not run forever.
        limit = threading.Timer(SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
        limit.start()
        try:
            status = run_command_line(arguments)
        finally:
            limit.cancel()
        output = capsys.readouterr()
        return Outcome(status, output.out, output.err)

    return call


def command_of(*arguments: str) -> list[str]:
    """Return the program and arguments that run a command as a process."""
    return [sys.executable, "-m", "galaxy_trio", *arguments]


async def call_process(*arguments: str, python: Sequence[str] = ("-m", "galaxy_trio"), token: str = TOKEN) -> Outcome:
    """Run a command in another process to its end."""
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            [sys.executable, *python, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**environment(), "GALAXY_TRIO_TOKEN": token},
        )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


class Process:
    """A command that runs in another process. Made by `open_process`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._output = {"out": b"", "err": b""}

    async def wait_for_output(self, words: str, stream: str = "out") -> str:
        """Wait until a stream contains these words, and return its output so far."""
        source = self._process.stdout if stream == "out" else self._process.stderr
        assert source is not None
        with trio.fail_after(SECONDS):
            while words.encode() not in self._output[stream]:
                data = await source.receive_some()
                assert data, f"the process ended without printing {words!r}: {self._output}"
                self._output[stream] += data
        return self._output[stream].decode()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def stdout(self) -> trio.lowlevel.FdStream | None:
        """Its output, as far as it was not read."""
        return cast("trio.lowlevel.FdStream | None", self._process.stdout)

    async def wait(self) -> int:
        """Wait until the command has ended, without reading its output, and return its status."""
        with trio.fail_after(SECONDS):
            return await self._process.wait()

    async def end(self) -> Outcome:
        """Wait until the command has ended."""
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for stream, source in (("out", self._process.stdout), ("err", self._process.stderr)):
                    if source is not None:
                        nursery.start_soon(self._drain, stream, source)
            status = await self._process.wait()
        return Outcome(status, self._output["out"].decode(), self._output["err"].decode())

    async def _drain(self, stream: str, source: trio.abc.ReceiveStream) -> None:
        async for data in source:
            self._output[stream] += data


@asynccontextmanager
async def open_process(
    *arguments: str,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    token: str | None = TOKEN,
    python: Sequence[str] = ("-m", "galaxy_trio"),
) -> AsyncGenerator[Process]:
    """Run a command in another process during the block, and kill it at the end of the block."""
    env = environment()
    if token is None:
        del env["GALAXY_TRIO_TOKEN"]
    start = partial(
        trio.run_process,
        [sys.executable, *python, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        check=False,
        env=env,
    )
    async with trio.open_nursery() as nursery:
        process = cast("trio.Process", await nursery.start(start))
        try:
            yield Process(process)
        finally:
            process.kill()


_TRIES = 100


class _WatchedOutput(io.StringIO):
    def __init__(self, on_write: Callable[[], None]) -> None:
        super().__init__()
        self._on_write = on_write

    def write(self, text: str, /) -> int:
        count = super().write(text)
        self._on_write()
        return count


class Command:
    """A command that runs in the main thread, where signals arrive, while a test runs in another: see `with_command`.

    A test may run several commands, one after the other.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._commands: queue.SimpleQueue[tuple[str, ...] | None] = queue.SimpleQueue()
        self._token: trio.lowlevel.TrioToken | None = None
        self._changed = trio.Event()
        self._running = threading.Event()
        self._status: int | None = None
        self._out = self._err = _WatchedOutput(self._notify)

    def start(self, *arguments: str) -> None:
        """Start a command."""
        assert not self._running.is_set(), "the previous command has not ended"
        self._out, self._err, self._status = _WatchedOutput(self._notify), _WatchedOutput(self._notify), None
        self._running.set()
        self._commands.put(arguments)

    async def wait_for_stderr(self, words: str, times: int = 1) -> str:
        """Wait until stderr contains these words that many times, and return its content."""
        await self._wait(lambda: self._err.getvalue().count(words) >= times, f"{words!r} was not printed")
        return self._err.getvalue()

    async def wait_for_stdout(self, words: str) -> str:
        """Wait until stdout contains these words, and return its content."""
        await self._wait(lambda: words in self._out.getvalue(), f"{words!r} was not printed to stdout")
        return self._out.getvalue()

    async def first_line(self) -> str:
        """Wait for the first line on stdout."""
        await self._wait(lambda: "\n" in self._out.getvalue(), "there is no line on stdout")
        return self._out.getvalue().partition("\n")[0]

    def send_signal(self, number: int) -> None:
        """Send a signal to this process, which the command receives."""
        os.kill(os.getpid(), number)

    async def end(self) -> Outcome:
        """Wait until the command has ended."""
        await self._wait(lambda: not self._running.is_set(), "the command does not end")
        assert self._status is not None, "the command raised an exception"
        return Outcome(self._status, self._out.getvalue(), self._err.getvalue())

    async def terminate(self) -> Outcome:
        """Send SIGTERM, and wait until the command has ended."""
        self.send_signal(signal.SIGTERM)
        return await self.end()

    async def _wait(self, happened: Callable[[], bool], otherwise: str) -> None:
        with trio.move_on_after(SECONDS):
            while not happened():
                assert self._running.is_set(), f"{otherwise}: {self._out.getvalue()}{self._err.getvalue()}"
                await self._changed.wait()
            return
        raise AssertionError(f"{otherwise}: {self._out.getvalue()}{self._err.getvalue()}")

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run the test in another thread and its commands in this one. Raises what the test raised."""
        failures: list[BaseException] = []

        async def run_test() -> None:
            self._token = trio.lowlevel.current_trio_token()
            await test()

        def run_thread() -> None:
            try:
                trio.run(run_test)
            except BaseException as failure:  # noqa: BLE001  # raised below
                failures.append(failure)
            self._commands.put(None)
            # Stop a command that the test has left running. SIGINT only if SIGTERM has no effect: if it came late, it would end the tests.
            tries = 0
            while self._running.is_set():
                self.send_signal(signal.SIGTERM if tries < _TRIES else signal.SIGINT)
                tries += 1
                threading.Event().wait(0.05)

        # A signal that arrives when no command runs must not end the tests.
        before = signal.signal(signal.SIGTERM, _ignore)
        thread = threading.Thread(target=run_thread)
        thread.start()
        try:
            while (arguments := self._commands.get()) is not None:
                self._run(arguments)
        finally:
            thread.join()
            signal.signal(signal.SIGTERM, before)
        if failures:
            raise failures[0]

    def _run(self, arguments: tuple[str, ...]) -> None:
        try:
            with self._monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", self._out)
                patch.setattr(sys, "stderr", self._err)
                self._status = run_command_line(arguments)
        finally:
            self._running.clear()
            self._notify()

    def _notify(self) -> None:
        """Wake the test's waits from the main thread."""

        def wake() -> None:
            self._changed.set()
            self._changed = trio.Event()

        assert self._token is not None
        # The test may have ended.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(wake)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def with_command(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in another thread, concurrently with the command that it starts.

    Pytest's main thread runs the command as a shell would, with signals and exit status. The test has the fixture `command`.
    """

    @functools.wraps(test)
    def wrapper(*, command: Command, **fixtures: object) -> None:
        command.run(partial(test, command=command, **fixtures))

    return wrapper


async def ask(url: str, request: str, *, token: str | None = TOKEN, device: str = DEVICE) -> TaskResult:
    """Run a task."""
    with trio.fail_after(SECONDS):
        async with open_connection(url, device, token=token) as connection:
            return await connection.run_task(request)
