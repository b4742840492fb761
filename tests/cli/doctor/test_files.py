"""The doctor's checks of files: configurations, tokens and who can read them, certificates, the daemon's directory."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import trustme

from galaxy_trio._cli.doctor.files import check_files
from galaxy_trio._cli.doctor.findings import Finding, Level
from tests.cli.support.command_line import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = {"device_id": "a", "server_url": "ws://127.0.0.1:1"}


def write(folder: Path, *devices: object, mode: int = 0o600) -> Path:
    path = folder / "devices.json"
    path.write_text(json.dumps({"devices": devices}))
    path.chmod(mode)
    return path


def findings(file: Path) -> list[Finding]:
    sections, _ = check_files(file)
    assert TOKEN not in str(sections)
    return [finding for section in sections for finding in section.findings]


def problems(file: Path) -> list[Finding]:
    found = [finding for finding in findings(file) if finding.level is Level.PROBLEM]
    assert all(finding.advice for finding in found)
    return found


def test_valid_file_has_no_problem_and_its_devices_are_returned(tmp_path: Path) -> None:
    sections, config = check_files(write(tmp_path, DEVICE, mode=0o644))
    assert [finding.text for finding in sections[0].findings] == ["the configuration is valid: 1 device"]
    assert config is not None


def test_every_problem_of_an_invalid_file_is_a_finding(tmp_path: Path) -> None:
    file = write(tmp_path, {**DEVICE, "sever": 1, "max_retries": -1})
    assert [finding.text.split(":")[0] for finding in problems(file)] == ["devices[0].sever", "devices[0].max_retries"]
    [missing] = problems(tmp_path / "none.toml")
    assert "No such file" in missing.text


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, None),
        (0o640, None),
        (0o644, "every user of this machine can read"),
        (0o646, "every user of this machine can read and write"),
        (0o660, "other users of its group can write"),
    ],
)
def test_files_with_secrets_are_for_their_owner(tmp_path: Path, mode: int, words: str | None) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(mode)
    for file in (
        write(tmp_path, {**DEVICE, "token_file": "token"}),
        write(tmp_path, {**DEVICE, "token": TOKEN}, mode=mode),
        write(tmp_path, {**DEVICE, "headers": {"Authorization": TOKEN}}, mode=mode),
    ):
        (tmp_path / "token").chmod(mode)
        found = problems(file)
        assert [finding.text.startswith(words or "") for finding in found] == ([True] if words else [])
        assert all(finding.advice.startswith("chmod 600 ") for finding in found)


def test_token_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    [missing] = problems(write(tmp_path, {**DEVICE, "token_file": "none"}))
    assert "the token of device 'a' cannot be read" in missing.text
    [unset] = problems(write(tmp_path, {**DEVICE, "token_env": "NO_SUCH_VARIABLE_IS_SET"}))
    assert "is not set" in unset.text


def test_certificates_are_loaded(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "empty.pem").write_text("")
    secure = {**DEVICE, "server_url": "wss://127.0.0.1:1"}
    names = ("ca.pem", "empty.pem", "none.pem")
    devices = [{**secure, "device_id": name, "ca_file": name} for name in names]
    texts = [finding.text.replace(f"{tmp_path}/", "") for finding in findings(write(tmp_path, *devices))[1:]]
    assert texts == [
        "the certificates in ca.pem can be used",
        "the certificates cannot be read from empty.pem: it contains no certificates in PEM format",
        "the certificates cannot be read from none.pem: No such file or directory",
    ]


def test_daemons_configuration_is_checked_with_its_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALAXY_TRIO_DAEMON_TOKEN", raising=False)
    write(tmp_path, DEVICE)
    file = tmp_path / "galaxy.toml"
    file.write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"')
    sections, config = check_files(file)
    assert [section.subject for section in sections] == [str(file), str(tmp_path / "devices.json")]
    assert [finding.level for section in sections for finding in section.findings] == [Level.OK] * 3
    assert config is not None
    file.write_text('devices = "devices.json"\nport = 1')
    [unknown] = problems(file)
    assert unknown.text.startswith("port: unknown key")


def test_daemon_that_cannot_start_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALAXY_TRIO_DAEMON_TOKEN", raising=False)
    write(tmp_path, DEVICE)
    file = tmp_path / "galaxy.toml"

    def problem(settings: str) -> Finding:
        file.write_text(f'devices = "devices.json"\n{settings}')
        [found] = problems(file)
        return found

    assert "there is no token" in problem('listen = "0.0.0.0:0"').text
    assert "the daemon cannot start: database: " in problem('database = "none/galaxy.db"\nlisten = "127.0.0.1:0"').text
    assert "token_file" in problem('token_file = "none"\nlisten = "127.0.0.1:0"').text
    (tmp_path / "tokens").write_text(TOKEN)
    (tmp_path / "tokens").chmod(0o644)
    assert problem('token_file = "tokens"\nlisten = "127.0.0.1:0"').advice == f"chmod 600 {tmp_path}/tokens"
    (tmp_path / "galaxy.db").touch()
    (tmp_path / "galaxy.db").chmod(0o644)
    assert "chmod 600" in problem('listen = "127.0.0.1:0"').text


def test_problem_of_the_devices_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GALAXY_TRIO_DAEMON_TOKEN", raising=False)
    write(tmp_path, {**DEVICE, "server": 1})
    file = tmp_path / "galaxy.toml"
    file.write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"')
    [found] = problems(file)
    assert found.text.startswith("devices[0].server: unknown key")


def test_daemon_without_its_extra_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, DEVICE)
    file = tmp_path / "galaxy.toml"
    file.write_text('devices = "devices.json"')
    monkeypatch.delitem(sys.modules, "galaxy_trio.daemon.check", raising=False)
    monkeypatch.setitem(sys.modules, "galaxy_trio.daemon.store.database", None)
    monkeypatch.setattr("galaxy_trio._cli.extras._DAEMON", ("galaxy_trio",))
    [found] = problems(file)
    assert "which is not installed: pip install" in found.text


def test_keys_that_are_not_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "constellation.json"
    file.write_text(json.dumps({"devices": [DEVICE], "LOG_TO_MARKDOWN": True}))
    assert [finding.text for finding in findings(file)][1] == "not used: LOG_TO_MARKDOWN"
