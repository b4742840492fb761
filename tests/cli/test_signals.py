"""Ctrl-C and SIGTERM: commands and services that a signal stops."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio._cli.main
from galaxy_trio import (
    ConnectionLost,
)
from galaxy_trio._cli.signals import Interrupted, run_service, run_trio, run_until_signalled
from tests.cli.support.command_line import (
    DEVICE,
    Call,
    environment,
    is_one_sentence,
)
from tests.cli.support.world import open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from galaxy_trio.server import ServerTask


async def test_ctrl_c_ends_the_task_on_the_server_and_exits_with_130() -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def note(task: ServerTask) -> object:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    with trio.fail_after(SECONDS):
        async with open_world(note) as server, trio.open_nursery() as nursery:
            command = [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "x"]
            start = partial(
                trio.run_process, command, capture_stdout=False, stderr=subprocess.PIPE, check=False, env=environment()
            )
            process: trio.Process = await nursery.start(start)
            assert process.stderr is not None
            await begun.wait()
            process.send_signal(signal.SIGINT)
            output = b"".join([chunk async for chunk in process.stderr])
            assert await process.wait() == 130
            await cancelled.wait()
    assert output.startswith(b"error: interrupted")
    assert b"Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_cancels_the_work_and_raises_interrupted(number: int) -> None:
    async def work() -> None:
        signal.raise_signal(number)
        await trio.sleep_forever()

    with trio.fail_after(SECONDS), pytest.raises(Interrupted) as caught:
        await run_until_signalled(work)
    assert caught.value.signal_number == number


async def test_error_after_a_signal_is_not_reported() -> None:
    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    with trio.fail_after(SECONDS), pytest.raises(Interrupted):
        await run_until_signalled(work)


def test_interruption_at_any_time_exits_with_130(call: Call, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    async def interrupt(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(galaxy_trio._cli.main, "run", interrupt)
    outcome = call("run", url, DEVICE, "x")
    assert outcome.status == 130
    assert is_one_sentence(outcome)

    def interrupt_immediately(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(galaxy_trio._cli.main, "run_trio", interrupt_immediately)
    assert call("run", url, DEVICE, "x").status == 130


def test_known_error_alone_in_a_group_is_raised_without_the_group() -> None:
    lost = ConnectionLost("gone")

    async def fail_alone() -> None:
        async with trio.open_nursery(), trio.open_nursery():
            raise lost

    with pytest.raises(ConnectionLost) as caught:
        run_trio(fail_alone)
    assert caught.value is lost


def test_group_with_an_unknown_error_is_raised_unchanged() -> None:
    async def fail_in_two_ways() -> None:
        raise ExceptionGroup("two", [ConnectionLost("gone"), ZeroDivisionError()])

    with pytest.raises(ExceptionGroup, match="two"):
        run_trio(fail_in_two_ways)


def test_error_while_a_service_stops_is_raised() -> None:
    class Broken(Exception):
        pass

    async def service(error: Exception, stop: trio.Event) -> None:
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(SECONDS):
            await stop.wait()
        raise error

    with pytest.raises(Broken):
        run_service(partial(service, Broken()))
    lost = ConnectionLost("gone")
    with pytest.raises(ConnectionLost) as caught:
        run_service(partial(service, lost))
    assert caught.value is lost


def test_signal_before_a_service_is_set_up_cancels_it_and_exits_with_0() -> None:
    cancelled: list[bool] = []

    async def service(stop: trio.Event) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await trio.sleep(SECONDS)
        except trio.Cancelled:
            cancelled.append(True)
            raise

    assert run_service(service) == 0
    assert cancelled == [True]


def test_signal_cancels_work_that_does_not_wait_for_the_stop() -> None:
    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(SECONDS)

    with pytest.raises(Interrupted):
        run_trio(work, trio.Event())
