"""The program: version, help, shell completion, and what it needs to be installed."""

from __future__ import annotations

import sys

import pytest

import galaxy_trio.__main__
import galaxy_trio._cli
from galaxy_trio import (
    __version__,
)
from tests.cli.support.command_line import (
    Call,
    Outcome,
    call_process,
)


def test_version_is_printed(call: Call) -> None:
    assert call("--version") == Outcome(0, f"galaxy-trio {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["galaxy-trio demo", "GALAXY_TRIO_TOKEN", "130 Ctrl-C"]),
        (["--help"], ["galaxy-trio demo", "GALAXY_TRIO_TOKEN", "130 Ctrl-C"]),
        (["demo", "-h"], ["galaxy-trio demo"]),
        (["info", "--help"], ["galaxy-trio info ws://127.0.0.1:5000/ws linux_agent_1", "[default: 10]"]),
        (["run", "--help"], ['galaxy-trio run ws://127.0.0.1:5000/ws linux_agent_1 "', "[default: 1000]"]),
    ],
)
def test_help_contains_an_example(call: Call, arguments: list[str], words: list[str]) -> None:
    outcome = call(*arguments)
    assert (outcome.status, outcome.err) == (0, "")
    assert [word for word in words if word not in outcome.out] == []


async def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules.update(click=None, rich=None); import runpy; runpy.run_module('galaxy_trio', run_name='__main__')"
    outcome = await call_process("demo", python=("-c", program))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert 'pip install "galaxy_trio[cli]"' in outcome.err


async def test_importing_the_package_imports_neither_click_nor_rich() -> None:
    program = "import sys, galaxy_trio, galaxy_trio.server, galaxy_trio.agent; sys.exit(bool({'click', 'rich'} & sys.modules.keys()))"
    assert await call_process(python=("-c", program)) == Outcome(0, "", "")


def test_main_says_what_to_install_and_raises_other_import_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "galaxy_trio._cli.main")
    monkeypatch.delattr(galaxy_trio._cli, "main")
    monkeypatch.setitem(sys.modules, "click", None)
    assert galaxy_trio.__main__.main() == 2
    assert capsys.readouterr().err == 'the command line needs click and rich: pip install "galaxy_trio[cli]"\n'
    monkeypatch.setitem(sys.modules, "galaxy_trio._cli.main", None)
    with pytest.raises(ModuleNotFoundError):
        galaxy_trio.__main__.main()


async def test_python_m_runs_the_command() -> None:
    assert await call_process("--version") == Outcome(0, f"galaxy-trio {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "position", "completed"),
    [
        ("galaxy-trio dae", 1, "daemon"),
        ("galaxy-trio task ca", 2, "cancel"),
        ("galaxy-trio task submit --idem", 3, "--idempotency-key"),
    ],
)
def test_commands_and_options_are_completed_in_a_shell(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    position: int,
    completed: str,
) -> None:
    monkeypatch.setenv("_GALAXY_TRIO_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(position))
    with pytest.raises(SystemExit):
        call()
    assert capsys.readouterr().out == f"plain,{completed}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_script_of_a_shell_is_printed(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("_GALAXY_TRIO_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit):
        call()
    assert "_GALAXY_TRIO_COMPLETE" in capsys.readouterr().out
