"""Notifications to systemd, and its watchdog."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.daemon import systemd
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.daemon


@pytest.fixture(params=["path", "abstract"])
def notify_socket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[socket.socket]:
    """The socket that systemd reads from."""
    name = str(tmp_path / "n") if request.param == "path" else f"@galaxy-trio-{os.getpid()}-{tmp_path.name}"[:100]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading:
        reading.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        reading.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield reading


def _said(notify_socket: socket.socket) -> list[str]:
    said: list[str] = []
    while True:
        try:
            said.append(notify_socket.recv(4096).decode())
        except BlockingIOError:
            return said


async def test_systemd_is_notified_of_ready_reloading_and_stopping(
    notify_socket: socket.socket, tmp_path: Path
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        said: list[str] = []
        # The daemon listens before it is ready.
        while not said:
            said += _said(notify_socket)
            await trio.sleep(0.005)
        assert said == ["READY=1"]
        said.clear()
        await daemon.reload()
        while len(said) < 2:
            said += _said(notify_socket)
            await trio.sleep(0.005)
        assert said[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert said[1] == "READY=1"
    assert _said(notify_socket) == ["STOPPING=1"]


def test_without_systemd_no_notification_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.ready()


def test_failing_notification_is_logged_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    systemd.ready()
    assert "systemd cannot be notified of 'READY=1'" in caplog.text


async def test_watchdog_is_pinged_twice_per_interval(notify_socket: socket.socket, autojump_clock: MockClock) -> None:
    environment = {**os.environ, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    with trio.move_on_after(22):
        await systemd.ping_watchdog(environment)
    assert _said(notify_socket) == ["WATCHDOG=1"] * 5


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}])
async def test_watchdog_is_not_pinged_without_a_valid_request(
    environment: dict[str, str], autojump_clock: MockClock
) -> None:
    with trio.fail_after(1):
        await systemd.ping_watchdog(environment)
