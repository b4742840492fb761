"""``galaxy-trio daemon``: its output, its check of the configuration, and its errors."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.support.command_line import Call, Outcome, call_process, is_one_sentence, open_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon


def _configure(directory: Path, **more: str) -> str:
    (directory / "devices.json").write_text('{"devices": [{"device_id": "d1", "server_url": "ws://127.0.0.1:1"}]}')
    settings = {"devices": "devices.json", "listen": "127.0.0.1:0", **more}
    (directory / "galaxy.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    return str(directory / "galaxy.toml")


async def test_daemon_prints_its_address_and_exits_with_0_after_sigterm(tmp_path: Path) -> None:
    async with open_process("daemon", "--config", _configure(tmp_path)) as process:
        url = (await process.wait_for_output("\n")).strip()
        outcome = await call_process("task", "list", "--url", url)
        assert outcome == Outcome(0, "no tasks\n", "")
        process.send_signal(signal.SIGTERM)
        outcome = await process.end()
    assert (outcome.status, outcome.out) == (0, f"{url}\n")
    assert f"listening at {url}" in outcome.err


def test_daemon_check_validates_the_configuration(call: Call, tmp_path: Path) -> None:
    config = _configure(tmp_path)
    assert call("daemon", "--config", config, "--check") == Outcome(0, f"{config} is valid: 1 device\n", "")
    outcome = call("daemon", "--config", _configure(tmp_path, listten="x"), "--check")
    assert (outcome.status, "did you mean 'listen'?" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"listen": "0.0.0.0:0"}, "there is no token: set token_file, or listen at 127.0.0.1 or unix:PATH"),
        ({"listen": "nonsense"}, "'nonsense' is no"),
        ({"database": "nowhere/galaxy.db"}, "nowhere: create it, or configure another path"),
        ({"devices": "nothing.json"}, "nothing.json"),
    ],
)
def test_daemon_that_cannot_start_is_one_sentence(
    call: Call, tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    outcome = call("daemon", "--config", _configure(tmp_path, **settings))
    assert outcome.status == 2
    assert sentence in outcome.err
    assert is_one_sentence(outcome)
