"""Ctrl-C while the program starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import pytest
import trio

import galaxy_trio.__main__
from galaxy_trio._program_start import exit_on_ctrl_c, raise_on_ctrl_c
from tests.cli.support.command_line import Outcome, call_process, environment
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_SCRIPT: Final = """
import sys
sys.argv[0] = "/usr/bin/galaxy-trio"
from galaxy_trio.__main__ import main
sys.exit(main())
"""
_MODULES: Final = ("attr", "trio._core._run", "galaxy_trio.messages", "click.core", "galaxy_trio._cli.demo.demo")
_LAST: Final = "galaxy_trio._cli.main"
"""After it the command may run already: a service that is stopped exits with 0."""


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored() -> Generator[None]:
    """Let the programs begin as in a terminal. Shells ignore Ctrl-C in what they run in the background, and programs inherit that."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


async def _interrupt_after(module: str, program: Sequence[str]) -> tuple[int, bytes]:
    """Start a server, press Ctrl-C when it has imported a module, and return its exit status and stderr."""
    start = partial(
        trio.run_process,
        [sys.executable, "-X", "importtime", *program, "server", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        # Ctrl-C while trio begins leaves its own sockets to the garbage collector.
        env=environment() | {"PYTHONWARNINGS": "error,ignore::ResourceWarning"},
    )
    output = b""
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            process = cast("trio.Process", await nursery.start(start))
            assert process.stderr is not None
            sent = False
            while data := await process.stderr.receive_some():
                output += data
                if not sent and any(line.split()[-1:] == [module.encode()] for line in output.splitlines()):
                    process.send_signal(signal.SIGINT)
                    sent = True
            return await process.wait(), output


@pytest.mark.parametrize(
    ("program", "modules"),
    [(("-m", "galaxy_trio"), (*_MODULES, _LAST)), (("-c", _SCRIPT), ("attr", _LAST))],
    ids=["python -m", "script"],
)
async def test_ctrl_c_during_an_import_ends_the_program_without_a_traceback(
    program: Sequence[str], modules: Sequence[str]
) -> None:
    for module in modules:
        status, output = await _interrupt_after(module, program)
        assert status in ((130, 0) if module == _LAST else (130,)), module
        assert b"Traceback" not in output, module
        assert b"KeyboardInterrupt" not in output, module


async def test_importing_the_package_leaves_ctrl_c_to_other_programs() -> None:
    program = "import signal, galaxy_trio; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert await call_process(python=("-c", program)) == Outcome(0, "True\n", "")


def test_ctrl_c_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        monkeypatch.setattr(sys, "argv", ["galaxy-trio", "--version"])
        assert galaxy_trio.__main__.main() == 0
        exit_on_ctrl_c()
        raise_on_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_before_and_after_a_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        exit_on_ctrl_c()
        signal.raise_signal(signal.SIGINT)
        assert ends == [130]
        raise_on_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

        def interrupted(arguments: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("galaxy_trio._cli.main.run_command_line", interrupted)
        assert galaxy_trio.__main__.main() == 130
        signal.raise_signal(signal.SIGINT)
        assert ends == [130, 130]
    finally:
        signal.signal(signal.SIGINT, before)
