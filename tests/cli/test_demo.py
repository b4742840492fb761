"""``galaxy-trio demo``: its figures and checks."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from rich.console import Console

import galaxy_trio._cli.demo.demo
from galaxy_trio import ConnectFailed, DeviceInfo
from galaxy_trio._cli.demo.demo import ENDLESS, TIME_LIMIT, TOO_LONG, demo
from galaxy_trio._cli.demo.report import Report
from galaxy_trio._cli.demo.work import Work, seconds_of_work
from galaxy_trio._cli.terminal import PipeConsole

if TYPE_CHECKING:
    import subprocess

    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.programs

BOUND = 2 * TIME_LIMIT
"""Seconds after which it hangs: its own time limit is shorter."""


@pytest.fixture(scope="module")
def demo_in_a_pipe() -> subprocess.CompletedProcess[bytes]:
    """The unchanged demonstration, run once for all tests that check its output."""

    async def run() -> subprocess.CompletedProcess[bytes]:
        shown_plainly = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
        command = [sys.executable, "-m", "galaxy_trio", "demo"]
        with trio.fail_after(BOUND):
            return await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=shown_plainly
            )

    return trio.run(run)


def test_all_checks_pass(demo_in_a_pipe: subprocess.CompletedProcess[bytes]) -> None:
    assert (demo_in_a_pipe.returncode, demo_in_a_pipe.stderr) == (0, b"")
    last = demo_in_a_pipe.stdout.decode().splitlines()[-1]
    assert re.fullmatch(r"All checks passed: 28 in \d+\.\d s\.", last)


def test_output_in_a_pipe_is_plain_lines_of_at_most_80_columns(
    demo_in_a_pipe: subprocess.CompletedProcess[bytes],
) -> None:
    text = demo_in_a_pipe.stdout.decode()
    assert text.replace("\n", "").isprintable()
    assert max(map(len, text.splitlines())) <= 80
    assert not [line for line in text.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize(
    "figures",
    [
        r"server  ws://127\.0\.0\.1:\d+/ws, with a token",
        r"processors +\d+\n",
        r"completed +20 of 20, each with its own result",
        r"concurrent +up to 20 sessions on the server",
        r"total work +16\.72 s\n +time taken +\d+\.\d\d s\n",
        r"messages +20 sent, 40 received",
        r"RequestTimeout after \d+\.\d\d s; pending requests: 0",
        r"late replies counted: 1",
        r"before +on the server: 2 clients, 1 running session\n",
        r"after +on the server: 1 client, 0 running sessions\n",
        r"RegistrationRejected after .* m?s:\n +Target device 'no-such-device' is not connected",
        r"HandshakeRejected after .* m?s:\n +HTTP status 403",
        r"before +3 tasks run, one on each device; 3 are queued\n",
        r"killed +demo-windows; disconnected after .* m?s\n",
        r"its task +failed: .*disconnected\n +back +connected again .* m?s later\n",
        r"the others +5 of 5 completed, including the one queued for that device\n",
        r"total +6 of 6 ran on the device of their system\n +after +0 tasks run, 0 are queued\n",
        r"graph +8 nodes, 7 edges, 4 layers\n +first +3 nodes run, on 3 devices\n",
        r"merge +failed: it fails on purpose; retried .* m?s later\n +completed on attempt 2\n",
        r"skipped +repair, repeat: they run after a failure of merge\n +archive +completed; sent .* m?s after the end of merge\n",
        r"the graph +completed: 7 nodes completed, 2 were skipped\n",
        r"12 got a ConnectionLost each, .* after the stop\n +steps +1 pass of trio's scheduler",
        r"0 pending requests; a new one raises ConnectionLost immediately",
    ],
)
def test_figures_match_what_happened(demo_in_a_pipe: subprocess.CompletedProcess[bytes], figures: str) -> None:
    assert re.search(figures, demo_in_a_pipe.stdout.decode())


def test_work_takes_the_same_different_times_in_each_run() -> None:
    times = [seconds_of_work(number) for number in range(1, 21)]
    assert times == [seconds_of_work(number) for number in range(1, 21)]
    assert len(set(times)) == 20
    assert 0.2 <= min(times) < max(times) <= 1.5
    assert times != sorted(times)


async def test_progress_bar_is_shown_on_a_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, force_interactive=True, width=80, color_system="standard")
    with trio.fail_after(BOUND):
        assert await demo(console, pace=0.05) == 0
    assert "━" in output.getvalue()
    assert "20/20" in output.getvalue()


async def test_failed_checks_are_printed_and_exit_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    working = Work.session

    async def fail(work: Work, task: ServerTask) -> object:
        if task.request == ENDLESS:
            return await working(work, task)
        if task.request != TOO_LONG:
            await working(work, task)
        raise RuntimeError("out of order")

    monkeypatch.setattr(Work, "session", fail)
    output = io.StringIO()
    with trio.fail_after(BOUND):
        assert await demo(Console(file=output, width=80)) == 1
    text = " ".join(output.getvalue().split())
    assert "completed 0 of 20" in text
    assert "UNEXPECTED: check failed: all tasks completed, each with its own result." in text
    assert "UNEXPECTED: check failed: the task timed out." in text
    assert "UNEXPECTED: check failed: the node that failed was sent once more, and completed." in text
    assert "UNEXPECTED: check failed: the graph completed." in text
    assert text.endswith(f"UNEXPECTED results: {text.count('UNEXPECTED: ')}, see above.")


async def test_demonstration_fails_at_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(device_id: str) -> DeviceInfo:
        await trio.sleep_forever()

    monkeypatch.setattr(galaxy_trio._cli.demo.demo, "collect_system_info", never)
    output = io.StringIO()
    with trio.fail_after(BOUND):
        assert await demo(Console(file=output, width=80), time_limit=0.01) == 1
    assert "UNEXPECTED: it did not end within 0.01 s." in output.getvalue()


async def test_error_is_printed_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> object:
        raise ConnectFailed("no way [there]")

    monkeypatch.setattr(galaxy_trio._cli.demo.demo, "open_device_connection", refuse)
    output = io.StringIO()
    with trio.fail_after(BOUND):
        assert await demo(Console(file=output, width=80), pace=0.01) == 1
    assert "UNEXPECTED: ConnectFailed: no way [there]." in output.getvalue()


async def test_demonstration_stops_when_its_output_is_closed() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:  # noqa: ARG002
            raise BrokenPipeError

    with trio.fail_after(BOUND), pytest.raises(BrokenPipeError):
        await demo(PipeConsole(file=Gone()), pace=0.01)


async def test_demonstration_stops_when_its_output_is_closed_in_the_middle() -> None:
    class Leaving(io.StringIO):
        def write(self, text: str, /) -> int:
            if "Refusals" in text:
                raise BrokenPipeError
            return super().write(text)

    with trio.fail_after(BOUND), pytest.raises(BrokenPipeError):
        await demo(PipeConsole(file=Leaving()), pace=0.01)


async def test_demonstration_can_be_cancelled() -> None:
    class Cancelling(io.StringIO):
        def write(self, text: str, /) -> int:
            if "A timeout" in text:
                scope.cancel()
            return super().write(text)

    output = Cancelling()
    with trio.fail_after(BOUND), trio.CancelScope() as scope:
        await demo(Console(file=output, width=80))
    assert scope.cancelled_caught
    assert "late reply" not in output.getvalue()


def test_report_exits_with_0_without_failures_and_with_1_otherwise() -> None:
    output = io.StringIO()
    report = Report(Console(file=output, width=80))
    report.check("one is one", holds=True)
    assert report.conclude(1) == 0
    assert "All checks passed: 1 in 1.0 s." in output.getvalue()
    report.check("one is two", holds=False)
    assert report.conclude(1) == 1
    assert "UNEXPECTED: check failed: one is two." in output.getvalue()
