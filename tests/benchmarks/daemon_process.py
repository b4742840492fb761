"""A daemon of either tree as a process, with its configuration in a directory."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .processes import Core, ServerProcess, pin, running_server

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .trees import Tree

DEVICES: Final = 50


def running_daemon_server() -> AbstractContextManager[ServerProcess]:
    """The server with the daemon's devices, see daemon_server.py."""
    return running_server("daemon_server", DEVICES)


def configure(directory: Path, server_url: str, listen: str, max_queued: int) -> None:
    """Write the daemon's configuration, with all devices on one server."""
    devices = [{"device_id": f"device_{number}", "server_url": server_url} for number in range(DEVICES)]
    (directory / "devices.json").write_text(json.dumps({"devices": devices}))
    lines = ['devices = "devices.json"', f'listen = "{listen}"', f"max_queued = {max_queued}"]
    (directory / "galaxy.toml").write_text("\n".join(lines))


@contextmanager
def running_daemon(tree: Tree, directory: Path, core: Core | None = Core.MEASURED) -> Generator[subprocess.Popen[str]]:
    """Start a daemon, which may not listen yet, and kill it after the block: what is on disk must do.

    Args:
        tree: Its code.
        directory: Its files.
        core: The core that it runs on; `None` for any.
    """
    command = [sys.executable, "-m", "galaxy_trio", "daemon", "--config", str(directory / "galaxy.toml")]
    with (
        (directory / "log").open("a") as log,
        subprocess.Popen(
            command, cwd=tree.path, env=tree.environment(), stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            if core is not None:
                pin(process, core)
            yield process
        finally:
            process.kill()


def wait_listening(process: subprocess.Popen[str], directory: Path) -> None:
    """Wait until the daemon prints where it listens.

    Raises:
        RuntimeError: It ended instead; what it logged.
    """
    if process.stdout is None or not process.stdout.readline():
        raise RuntimeError((directory / "log").read_text())
