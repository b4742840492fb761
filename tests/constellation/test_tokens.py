"""A token appears in no event, profile, `repr`, log line, statistics or error, whatever happens to a device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionOptions
from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from tests.connection.support.leaks import TOKENS, assert_not_shown
from tests.constellation.support.fleet import recording
from tests.constellation.support.scripted_server import LongestWaits, Reaction, open_scripted_server

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

SCRIPT: list[Exception | int | str | Reaction] = [
    OSError("no route"),
    Reaction.NO_HANDSHAKE,
    Reaction.HANG_UP,
    Reaction.GARBAGE,
    404,
    503,
    403,
    "already registered",
    "no",
    Reaction.NO_CONFIRMATION,
    Reaction.BROKEN_CONFIRMATION,
    Reaction.RESET_AFTER_REGISTRATION,
]


@pytest.fixture(autouse=True)
def every_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Record everything that any library logs, at all levels."""
    caplog.set_level(1)
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(1, logger=name)


def config_with(where: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceConfig:
    url = "ws://server.test/ws"
    match where:
        case "token":
            return DeviceConfig("a", url, token=token)
        case "file":
            (tmp_path / "token").write_text(token, encoding="utf-8")
            return DeviceConfig("a", url, token_file=str(tmp_path / "token"))
        case "environment":
            monkeypatch.setenv("GALAXY_TEST_TOKEN", token)
            return DeviceConfig("a", url, token_env="GALAXY_TEST_TOKEN")
        case "header":
            return DeviceConfig("a", url, headers={"X-Key": token.encode("latin-1", "ignore").decode("latin-1")})
        case _:
            return DeviceConfig("a", f"{url}?token={quote(token, safe='')}")


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("token", TOKENS, ids=["plain", "special"])
@pytest.mark.parametrize("where", ["token", "file", "environment", "header", "url"])
async def test_token_appears_in_no_output(
    where: str,
    token: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    config = config_with(where, token, tmp_path, monkeypatch)
    # A header contains no characters beyond Latin-1.
    secret = config.headers[0][1] if where == "header" else token
    shown: list[object] = [config]
    async with open_scripted_server() as server:
        server.script = list(SCRIPT)
        async with (
            open_constellation(
                [config],
                connect=server.connect,
                options=ConnectionOptions(connect_timeout=5, register_timeout=5),
                random=LongestWaits(),
            ) as constellation,
            recording(constellation) as journal,
        ):
            device = constellation.devices["a"]
            for seconds in (0, 1, 10, 100):
                await trio.sleep(seconds)
                shown += [constellation, device, unstructure_statistics(constellation.statistics())]
            await trio.sleep(2000)
            assert server.script == []
            await device.wait_connected()
            with trio.move_on_after(1):
                await device.run_task("a task")
            server.peer.send_text("no message")
            server.then = 403
            await trio.testing.wait_all_tasks_blocked()
            for act in (device.disconnect, device.reconnect, device.run_task):
                try:
                    with trio.move_on_after(1):
                        await act(*(["one more"] if act == device.run_task else []))
                except Exception as error:  # noqa: BLE001  # the check below looks for the token in it
                    shown.append(error)
            shown += [device, device.profile, unstructure_statistics(constellation.statistics())]
        paths = [each.peer.path for each in server.attempts if each.peer is not None]
        assert any("token=" in path for path in paths) == (where != "header")
    shown.extend(journal.events)
    assert len(journal.events) > 2 * len(SCRIPT)
    assert_not_shown(secret, caplog, *shown)
