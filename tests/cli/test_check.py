"""``galaxy-trio check`` and ``daemon --check``: every reason for which a configuration cannot be used, one per line."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from galaxy_trio.daemon.settings import is_daemon_file
from tests.cli.support.command_line import TOKEN, Call, Outcome, call_process, open_process

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = {"device_id": "d1", "server_url": "ws://127.0.0.1:1"}

pytestmark = pytest.mark.daemon


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out a token of the environment."""
    monkeypatch.delenv("GALAXY_TRIO_DAEMON_TOKEN", raising=False)


def configure(directory: Path, device: dict[str, object] | None = None, **settings: str) -> str:
    """Write the daemon's files; the devices file has one device."""
    (directory / "devices.json").write_text(
        json.dumps({"devices": [DEVICE if device is None else {**DEVICE, **device}]})
    )
    every = {"devices": "devices.json", "listen": "127.0.0.1:0", **settings}
    (directory / "galaxy.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in every.items()))
    return str(directory / "galaxy.toml")


def problems_of(call: Call, file: str) -> list[str]:
    """Check the daemon's file with both commands, which say the same, and return the lines of the problems."""
    outcome = call("daemon", "--config", file, "--check")
    assert call("check", file) == outcome
    assert (outcome.status, outcome.out) == (2, "")
    *problems, last = outcome.err.splitlines()
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    assert last == f"error: {file}: {count}"
    return problems


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"listen": "0.0.0.0:0"}, "listen: other machines can reach http://0.0.0.0:0, and there is no token: "),
        ({"listen": "nonsense"}, "listen: 'nonsense' is not an address: use unix:PATH or HOST:PORT"),
        ({"listen": "http://u:secret@127.0.0.1:0"}, "listen: an address is no URL: use unix:PATH or HOST:PORT"),
        ({"database": "postgres://u:secret@h/db"}, "database: expected the name of a file, or a URL that begins with postgresql+"),
        ({"database": "postgresql+psycopg://u:secret@127.0.0.1:1/d"}, "database: the database host=127.0.0.1 port=1 dbname=d user=u "),
        ({"cluster": "c"}, "cluster: only a PostgreSQL database has it: remove it, or set database to a URL"),
        ({"devices": "http://u:secret@h/d"}, "devices: expected the name of a file, not a URL"),
        ({"listen": "a..b:0"}, "listen: the daemon cannot listen at http://a..b:0: the host name is invalid"),
        ({"listen": "192.0.2.1:0"}, "listen: the daemon cannot listen at http://192.0.2.1:0: "),
        ({"listen": "unix:FOLDER/no/socket"}, "listen: the daemon cannot listen at unix:FOLDER/no/socket: No such file"),
        ({"listen": "unix:FOLDER/s", "socket_group": "no-such-group"}, "listen: "),
        ({"listen": "unix:FOLDER/devices.json"}, "listen: FOLDER/devices.json exists, and is not a socket: "),
        ({"database": "no/g.db"}, "database: the database FOLDER/no/g.db cannot be opened: there is no directory FOLDER/no: "),
        ({"database": "devices.json/g.db"}, "database: the database FOLDER/devices.json/g.db cannot be opened: FOLDER/devices.json is"),
        ({"database": "."}, "database: the database FOLDER cannot be opened: Is a directory"),
        ({"database": "devices.json"}, "database: other users can read or write the database FOLDER/devices.json: "),
        ({"devices": "none.json"}, "devices: the configuration FOLDER/none.json cannot be read: No such file"),
        ({"token_file": "none"}, "token_file: the tokens cannot be read from its file, whose name is not shown: No such file"),
        ({"listten": "x"}, "listten: unknown key; did you mean 'listen'?"),
    ],
)  # fmt: skip
def test_a_daemon_that_could_not_start_is_found_out(
    call: Call, tmp_path: Path, settings: dict[str, str], problem: str
) -> None:
    settings = {name: value.replace("FOLDER", str(tmp_path)) for name, value in settings.items()}
    file = configure(tmp_path, None, **settings)
    (tmp_path / "devices.json").chmod(0o644)
    before = sorted(tmp_path.iterdir())
    [found] = problems_of(call, file)
    assert found.startswith(problem.replace("FOLDER", str(tmp_path)))
    assert "secret" not in found
    assert sorted(tmp_path.iterdir()) == before


def test_all_reasons_are_reported_together_each_on_a_line(call: Call, tmp_path: Path) -> None:
    file = configure(tmp_path, {"server_url": "http://h", "max_retries": -1}, listen="x", database="no/g.db")
    found = [problem.partition(": ")[0] for problem in problems_of(call, file)]
    assert found == ["devices.json", "devices.json", "database", "listen"]


def test_a_foreign_database_is_found_out_and_left_unchanged(call: Call, tmp_path: Path) -> None:
    file = configure(tmp_path)
    (tmp_path / "galaxy.db").write_bytes(b"not a database" * 100)
    (tmp_path / "galaxy.db").chmod(0o600)
    [problem] = problems_of(call, file)
    assert "the file is not a database" in problem
    assert (tmp_path / "galaxy.db").read_bytes() == b"not a database" * 100


def test_a_directory_that_cannot_be_written_is_found_out(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sealed").mkdir()
    # Root may write everywhere.

    def access(path: Path, _mode: int) -> bool:
        return path != tmp_path / "sealed"

    monkeypatch.setattr(os, "access", access)
    [problem] = problems_of(call, configure(tmp_path, database="sealed/galaxy.db"))
    assert "give the daemon's user permission to write to the directory" in problem


def test_a_port_in_use_is_found_out(call: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        [problem] = problems_of(call, configure(tmp_path, listen=address))
    assert problem.startswith(f"listen: the daemon cannot listen at http://{address}: another program listens there")


async def test_the_configuration_of_a_running_daemon_can_be_checked_and_not_started_twice(tmp_path: Path) -> None:
    file = configure(tmp_path, listen=f"unix:{tmp_path}/socket")
    async with open_process("daemon", "--config", file) as process:
        await process.wait_for_output("\n")
        expected = f"{file} is valid: 1 device\na daemon is running with this configuration\n"
        assert await call_process("daemon", "--config", file, "--check") == Outcome(0, expected, "")
        configure(tmp_path, listen=f"unix:{tmp_path}/other")
        outcome = await call_process("check", file)
        assert outcome.err.startswith("database: another daemon uses the database")
        configure(tmp_path, listen=f"unix:{tmp_path}/socket", database="other.db")
        outcome = await call_process("check", file)
        assert outcome.err.startswith("listen: another daemon listens at")
        process.send_signal(signal.SIGTERM)
        await process.end()
    assert not (tmp_path / "other.db").exists()


def test_a_valid_configuration_leaves_nothing_behind(call: Call, tmp_path: Path) -> None:
    file = configure(tmp_path, listen=f"unix:{tmp_path}/socket")
    before = sorted(tmp_path.iterdir())
    assert call("check", file) == Outcome(0, f"{file} is valid: 1 device\n", "")
    assert sorted(tmp_path.iterdir()) == before


def test_files_without_which_a_device_cannot_connect_are_warnings_without_their_content(
    call: Call, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\nanother\n")
    (tmp_path / "ca.pem").write_text("nothing")
    file = configure(tmp_path, {"server_url": "wss://h", "token_file": "tokens", "ca_file": "ca.pem"})
    warnings = [
        f"warning: devices[0]: the token of device 'd1' must be a single one, and {tmp_path}/tokens contains 2 lines: remove the others",
        f"warning: devices[0]: the certificates cannot be read from {tmp_path}/ca.pem: it contains no certificates in PEM format",
    ]
    for arguments in (("check", file), ("check", str(tmp_path / "devices.json"))):
        outcome = call(*arguments)
        assert outcome.status == 0
        assert outcome.err.splitlines() == warnings


def test_keys_that_are_not_used_are_listed(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "constellation.json"
    path.write_text(json.dumps({"LOG_TO_MARKDOWN": True, "task_name": "t", "_x": 1, "devices": [DEVICE]}))
    expected = f"{path}: 1 device, 1 server\nnot used: LOG_TO_MARKDOWN, task_name\n"
    assert call("check", str(path)) == Outcome(0, expected, "")


def test_a_key_given_twice_is_reported_on_its_line(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text("devices:\n- device_id: a\n  server_url: ws://h\n  device_id: b\n  server_url: ws://h\n")
    outcome = call("check", str(path))
    assert outcome.err.splitlines() == [
        "devices[0].device_id: is given twice, in line 2 and in line 4: leave out one, or begin another item with a dash",
        "devices[0].server_url: is given twice, in line 3 and in line 5: leave out one, or begin another item with a dash",
        f"error: {path}: 2 problems",
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("galaxy.toml", "", True),
        ("galaxy.toml", "broken", True),
        ("daemon.toml", 'devices = "devices.toml"', True),
        ("daemon.toml", 'listen = "127.0.0.1:1"', True),
        ("daemon.toml", "drain = 5\nzzz = 1", True),
        ("galaxy.toml", "[[devices]]", False),
        ("devices.toml", "[[devices]]\nlisten = 1", False),
        ("devices.toml", "", False),
        ("devices.toml", "broken", False),
        ("devices.toml", 'device_info = "x"', False),
        ("galaxy.yaml", "listen: x", False),
    ],
)
def test_the_daemons_file_is_recognised(name: str, text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert is_daemon_file(tmp_path / name) is expected
    assert is_daemon_file(tmp_path / "none" / name) is (name == "galaxy.toml")
