"""``galaxy-trio doctor``: its output and exit status, and its checks of this machine."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING

from galaxy_trio import __version__
from galaxy_trio._cli.doctor.findings import Level, Section
from galaxy_trio._cli.doctor.machine import check_machine, check_requirements
from tests.cli.support.command_line import DEVICE, TOKEN, Call, call_process
from tests.cli.support.hostile import EVIL, call_on_terminal, harmful_characters

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def write(folder: Path, *devices: object) -> str:
    path = folder / "devices.json"
    path.write_text(json.dumps({"devices": devices}))
    path.chmod(0o600)
    return str(path)


def test_without_a_file_this_machine_is_checked(call: Call) -> None:
    outcome = call("doctor")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("This machine\n  ok       Python ")
    assert f"galaxy_trio {__version__}, with " in outcome.out
    assert "0 problems, " in outcome.out
    assert outcome.out.endswith("To check devices and servers too: galaxy-trio doctor FILE\n")


def test_file_without_problems_exits_with_0(call: Call, url: str, tmp_path: Path) -> None:
    outcome = call("doctor", write(tmp_path, {"device_id": DEVICE, "server_url": url, "token": TOKEN}))
    assert (outcome.status, outcome.err) == (0, "")
    assert f"\n{url}\n  ok       TCP, WebSocket handshake, registration\n" in outcome.out
    assert "0 problems, " in outcome.out.splitlines()[-1]
    assert TOKEN not in outcome.out


def test_problems_exit_with_1_and_say_what_to_do(call: Call, tmp_path: Path) -> None:
    file = write(tmp_path, {"device_id": "a", "server_url": "ws://127.0.0.1:1"})
    outcome = call("doctor", file)
    assert (outcome.status, outcome.err) == (1, "")
    assert "  problem  TCP: cannot connect to ws://127.0.0.1:1/ws" in outcome.out
    assert "           To do: start the server" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("1 problem, ")
    outcome = call("doctor", file, "--json")
    assert outcome.status == 1
    problem = json.loads(outcome.out)[-1]
    assert (problem["subject"], problem["level"]) == ("ws://127.0.0.1:1/ws", "problem")


def test_file_that_cannot_be_read_is_a_problem_and_exits_with_1(call: Call, tmp_path: Path) -> None:
    outcome = call("doctor", str(tmp_path / "none.json"))
    assert (outcome.status, outcome.err) == (1, "")
    assert "  problem  " in outcome.out


async def test_lines_fit_into_a_terminal_and_control_nothing(tmp_path: Path) -> None:
    device = {"device_id": f"a{EVIL}", "server_url": "ws://127.0.0.1:1/" + "x" * 100}
    shown = await call_on_terminal("doctor", write(tmp_path, device))
    assert not harmful_characters(shown, coloured=True)
    outcome = await call_process("doctor", write(tmp_path, device))
    assert not harmful_characters(outcome.out)


def test_missing_and_old_packages_are_found_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"trio": "0.30.1", "attrs": "24.2.0", "hypercorn": "0.19.1", "click": "8.3"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    section = Section("x")
    requirements = [
        "trio>=0.31", "attrs>=24.2", "click>=8.1; extra == 'cli'", "rich>=13.9; extra == 'cli'",
        "galaxy-trio[cli]; extra == 'daemon'", "hypercorn<0.19,>=0.18; extra == 'daemon'", "new[more]>=1; extra == 'other'",
        "click; extra == 'empty'", "?",
    ]  # fmt: skip
    check_requirements(section, requirements)
    assert [(finding.level, finding.text, finding.advice) for finding in section.findings] == [
        (Level.PROBLEM, "trio is 0.30.1, and must be >=0.31", "pip install --upgrade galaxy_trio"),
        (Level.OK, f"galaxy_trio {__version__}, with trio 0.30.1, attrs 24.2.0", ""),
        (
            Level.WARNING,
            "the extra cli, for the command line, files in YAML, and a device's memory and processors: rich is not installed",
            'pip install "galaxy_trio[cli]"',
        ),
        (
            Level.WARNING,
            "the extra daemon, for galaxy-trio daemon, task and events: hypercorn is 0.19.1, and must be <0.19",
            'pip install "galaxy_trio[daemon]"',
        ),
        (Level.OK, "the extra empty, for empty", ""),
        (Level.WARNING, "the extra other, for other: new is not installed", 'pip install "galaxy_trio[other]"'),
    ]


def test_package_that_is_not_installed_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert [finding.level for finding in check_machine().findings] == [Level.OK, Level.WARNING]
