"""Starts a world in a process of its own, and a browser, for the page's tests."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from playwright.sync_api import Browser

SECONDS: Final = 60.0
_ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class World:
    """A server, devices and a daemon in a process of their own; see page_world.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = str(self._answer())

    def do(self, word: str, *arguments: object) -> object:
        """Send a command to the world, and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps([word, *arguments])}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], SECONDS)[0], "the world does not answer"
        line = self._process.stdout.readline()
        assert line, "the world has ended"
        answer: object = json.loads(line)
        return answer


def _free_port() -> int:
    # Below the range of ephemeral ports, so that no connection takes it before the daemon listens.
    chance = SystemRandom()
    while True:
        port = chance.randrange(10_000, 32_768)
        with socket.socket() as listening, suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port


@contextmanager
def open_world(
    directory: Path,
    devices: Sequence[str] = ("laptop", "server", "phone"),
    *,
    token: str = "",
    missing: Sequence[str] = (),
    ended: int = 0,
) -> Generator[World]:
    """Run a world inside the block.

    Args:
        directory: The directory of the daemon's files.
        devices: The devices that connect.
        token: The daemon's token; empty for none.
        missing: Devices that are configured and never connect.
        ended: The number of tasks that ended before.
    """
    arguments = json.dumps([list(devices), token, _free_port(), list(missing), ended])
    command = [sys.executable, str(Path(__file__).with_name("page_world.py")), str(directory), arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # ourselves
        try:
            yield World(process)
        finally:
            # The end of its input ends the world, which kills its daemon.
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(SECONDS)
            finally:
                process.kill()


@contextmanager
def open_browser() -> Generator[Browser]:
    """Open headless Chromium."""
    path = os.environ.get("GALAXY_TRIO_CHROMIUM") or shutil.which("chromium")
    assert path, "the page's tests need Chromium: apt-get install chromium, or set GALAXY_TRIO_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def options(**more: Any) -> dict[str, Any]:
    """Options of a page's context that make it independent of the machine."""
    return {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "UTC", **more}
