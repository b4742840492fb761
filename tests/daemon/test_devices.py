"""The daemon's devices over HTTP, and the reload of its configuration."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.web.handlers
from tests.daemon.support.daemon import RunningDaemon, open_daemon
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon


async def test_devices_are_listed_with_their_current_state(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2", settings='name = "desk-1"') as daemon:
        await daemon.wait_connected(2)
        devices = (await daemon.ask("GET", "/devices"))["devices"]
        assert [device["device_id"] for device in devices] == ["d1", "d2"]
        shown = await daemon.ask("GET", "/devices/d1")
        assert (shown["status"], shown["os"], shown["queued"], shown["connects"]) == ("idle", "linux", 0, 1)
        assert [device["owner"] for device in [*devices, shown]] == ["desk-1"] * 3
        assert await daemon.ask("GET", "/devices/d3", 404) == {"error": "there is no device 'd3'; known: 'd1', 'd2'"}


async def test_reconnect_request_reconnects_the_device(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        shown = await daemon.ask("POST", "/devices/d1/reconnect")
        assert (shown["status"], shown["connects"]) == ("idle", 2)
        await daemon.ask("POST", "/devices/d3/reconnect", 404)


async def test_device_that_cannot_be_connected_is_shown_and_logged_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "galaxy_trio.daemon")
    monkeypatch.setattr(galaxy_trio.daemon.web.handlers, "RECONNECT_TIMEOUT", 0.5)
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        await daemon.fleet.kill_server()
        shown = await daemon.ask("POST", "/devices/d1/reconnect")
        assert shown["status"] != "idle"
        assert "no server is listening" in shown["problem"]
        logged = [record.getMessage() for record in caplog.records if "d1" in record.getMessage()]
        assert any(message.startswith("device 'd1': disconnected: cannot connect") for message in logged)
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "no device is connected"


async def _connects(daemon: RunningDaemon) -> dict[str, int]:
    devices = (await daemon.ask("GET", "/devices"))["devices"]
    return {device["device_id"]: device["connects"] for device in devices}


async def test_reload_adds_and_removes_devices_and_the_others_keep_their_connections(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        await daemon.wait_connected(2)
        await daemon.fleet.start_device("d3")
        daemon.devices("d1", "d3")
        await daemon.reload()
        while await _connects(daemon) != {"d1": 1, "d3": 1}:  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_changed_device_is_reconnected_and_its_queued_tasks_stay_queued(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2", drain=SECONDS) as daemon:
        await daemon.wait_connected(2)
        held = await daemon.submit("hold a")
        await daemon.wait_state(held, "running")
        queued = await daemon.submit("echo b")
        daemon.devices("d1", "d2", tags=["new"])
        await daemon.reload()
        # The running task may end first.
        assert await daemon.state(held) == "running"
        daemon.work.release("a")
        assert (await daemon.ended_task(held))["state"] == "completed"
        assert (await daemon.ended_task(queued))["state"] == "completed"
        assert daemon.work.begun == ["hold a", "echo b"]


async def test_tasks_of_a_removed_device_are_stopped_after_the_drain_time_and_its_queued_tasks_fail(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        await daemon.wait_connected(2)
        stuck = await daemon.submit("wait")
        await daemon.wait_state(stuck, "running")
        queued = await daemon.submit("echo b")
        daemon.devices("d2")
        await daemon.reload()
        assert (await daemon.ended_task(stuck))["state"] == "lost"
        failed = await daemon.ended_task(queued)
        assert (failed["state"], daemon.work.begun) == ("failed", ["wait"])
        assert "'d1'" in failed["error"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("galaxy.toml", "listen = 5", "listen: expected"),
        ("galaxy.toml", "=", "is not TOML"),
        ("devices.json", '{"devices": [{"device_id": "d1"}]}', "server_url"),
        ("devices.json", "{", "JSON"),
        ("tokens", "  \n", "there is no token in"),
    ],
)
async def test_reload_of_an_invalid_configuration_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str, sentence: str
) -> None:
    token = "a-token-of-the-test"
    (tmp_path / "tokens").write_text(token)
    async with open_daemon(tmp_path, "d1", settings='token_file = "tokens"') as daemon:
        daemon.client.headers["Authorization"] = f"Bearer {token}"
        await daemon.wait_connected(1)
        held = await daemon.submit("hold a")
        (tmp_path / name).write_text(text)
        with caplog.at_level(logging.INFO, "galaxy_trio.daemon"):
            await daemon.reload()
            await until(lambda: "nothing has changed" in caplog.text)
        assert sentence in caplog.text
        daemon.work.release("a")
        assert (await daemon.ended_task(held))["state"] == "completed"
        assert await _connects(daemon) == {"d1": 1}


async def test_reload_replaces_tokens_and_logs_which_settings_need_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokens").write_text("old")
    async with open_daemon(tmp_path, "d1", settings='token_file = "tokens"') as daemon:
        await daemon.ask("GET", "/devices", 401)
        daemon.client.headers["Authorization"] = "Bearer old"
        await daemon.ask("GET", "/devices")
        (tmp_path / "tokens").write_text("new\nother\n")
        settings = (tmp_path / "galaxy.toml").read_text()
        (tmp_path / "galaxy.toml").write_text(
            f'{settings}\ndatabase = "elsewhere.db"\nname = "desk-2"\nurl = "http://x"\nlog = "json"\n'
        )
        devices = json.loads((tmp_path / "devices.json").read_text())
        (tmp_path / "devices.json").write_text(json.dumps({**devices, "max_concurrent_tasks": 1, "MAX_STEP": 1}))
        with caplog.at_level(logging.INFO, "galaxy_trio.daemon"):
            await daemon.reload()
            await until(lambda: "the configuration was reloaded: no device has changed" in caplog.text)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == [
            f"{name} has changed: restart the daemon to apply it"
            for name in ("database", "name", "url", "log", "max_concurrent_tasks")
        ]
        await daemon.ask("GET", "/devices", 401)
        daemon.client.headers["Authorization"] = "Bearer other"
        await daemon.ask("GET", "/devices")
        # Without a token, the daemon would be open to all clients.
        (tmp_path / "galaxy.toml").write_text(settings.replace('token_file = "tokens"', ""))
        with caplog.at_level(logging.INFO, "galaxy_trio.daemon"):
            await daemon.reload()
            await until(lambda: "the new configuration has no token" in caplog.text)
        await daemon.ask("GET", "/devices")
        daemon.client.headers["Authorization"] = "Bearer old"
        await daemon.ask("GET", "/devices", 401)
