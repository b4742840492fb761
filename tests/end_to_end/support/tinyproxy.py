"""Debian's HTTP proxy tinyproxy (``apt-get install tinyproxy-bin``), with user and password."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path  # attrs reads it
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio

from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

USER: Final = "jane"
PASSWORD: Final = "s3cret-pass"
needs_tinyproxy = pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed")


@attrs.frozen
class Tinyproxy:
    """A running proxy."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def shown(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def targets(self) -> list[str]:
        """Return the host and port of each tunnel so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split(" CONNECT ")[1].split()[0] for line in lines if " CONNECT " in line]


@asynccontextmanager
async def open_tinyproxy(folder: Path, *, refused_ports: bool = False) -> AsyncGenerator[Tinyproxy]:
    """Run the proxy on loopback inside the block.

    Args:
        folder: Where its configuration and log are.
        refused_ports: Whether it refuses tunnels to all ports but 443.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    proxy = Tinyproxy(port, folder / "tinyproxy.log")
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nBasicAuth {USER} {PASSWORD}\n"
        f'LogLevel Connect\nLogFile "{proxy.log}"\n' + ("ConnectPort 443\n" if refused_ports else "")
    )
    process = await trio.lowlevel.open_process(
        ["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until(lambda: process.poll() is not None or _accepts(port))
        assert process.poll() is None, "tinyproxy has ended"
        yield proxy
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await process.wait()


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
