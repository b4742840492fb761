"""Closed and full output streams, and the log on stderr."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio._cli.main
from galaxy_trio import (
    DeviceInfo,
)
from galaxy_trio._cli.main import run_command_line
from galaxy_trio._cli.terminal import echo_in_thread, logging_to_stderr, silence
from tests.cli.support.command_line import (
    DEVICE,
    NO_SERVER,
    Call,
    environment,
)
from tests.cli.support.hostile import EVIL, harmful_characters
from tests.cli.support.world import INFO, open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path


async def test_closed_pipe_causes_no_error_message() -> None:
    async with open_world() as server:
        reading_end, writing_end = os.pipe()
        os.close(reading_end)
        try:
            with trio.fail_after(SECONDS):
                done = await trio.run_process(
                    [sys.executable, "-m", "galaxy_trio", "run", server.url, DEVICE, "say"],
                    stdout=writing_end,
                    capture_stderr=True,
                    check=False,
                    env=environment(),
                )
        finally:
            os.close(writing_end)
    assert (done.returncode, done.stderr) == (141, b"")


class _Failing(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str, /) -> int:  # noqa: ARG002
        raise self._error


def test_full_stdout_is_one_sentence_and_closed_stdout_none(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _Failing(OSError(28, "No space left on device")))
    assert run_command_line(["info", url, DEVICE]) == 1
    assert capsys.readouterr().err == "error: no space left on device\n"
    monkeypatch.setattr(sys, "stdout", _Failing(BrokenPipeError()))
    assert run_command_line(["info", url, DEVICE]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
def test_closed_or_full_stderr_does_not_change_the_exit_status(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(sys, "stderr", _Failing(error))
    assert run_command_line(["info", NO_SERVER, DEVICE]) == 3


def test_silenced_stdout_can_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out"
    with file.open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        stdout.write("never seen")
        silence(sys.stdout)
    assert file.read_bytes() == b""


def test_log_shows_warnings_on_one_escaped_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio.test")
    with logging_to_stderr():
        logger.info("hidden")
        logger.warning("look: %s", "\x1b[31m\nforged")
    logger.warning("too late")
    shown = capsys.readouterr().err
    assert shown.endswith(" WARNING galaxy_trio.test: look: \\u001b[31m forged\n")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "level"), [([], logging.WARNING), (["-v"], logging.INFO), (["-v", "-v"], logging.DEBUG)]
)
def test_verbose_options_set_the_log_level_during_the_command(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: list[str], level: int
) -> None:
    levels: list[int] = []

    def note(work: object) -> DeviceInfo:
        levels.append(logging.getLogger("galaxy_trio").getEffectiveLevel())
        return INFO

    monkeypatch.setattr(galaxy_trio._cli.main, "run_trio", note)
    before = logging.getLogger("galaxy_trio").level
    assert call(*options, "info", "ws://x", DEVICE).status == 0
    assert call("info", "ws://x", DEVICE, *options).status == 0
    assert levels == [level, level]
    assert logging.getLogger("galaxy_trio").level == before


async def test_text_that_is_printed_in_a_thread_controls_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    await echo_in_thread(f"{EVIL}\nä")
    shown = capfd.readouterr().out
    assert shown.endswith("\nä\n")
    assert not harmful_characters(shown)
