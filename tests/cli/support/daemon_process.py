"""A daemon with two devices for the tests of its client: ``python -m tests.cli.support.daemon_process TOKENS`` runs it as a process."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from tests.constellation.support.fleet import Work
from tests.daemon.support.daemon import open_daemon
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.server import ServerTask


MODULE = "tests.cli.support.daemon_process"


class _Session(Work):
    async def __call__(self, task: ServerTask) -> object:
        if task.request == "evil":
            return "\x1b]0;title\x07\u202e"
        if task.request == "large":
            return "x" * 2_000_000
        if task.request == "data":
            return {"é": [1, None]}
        return await super().__call__(task)


async def serve(tokens: str) -> None:
    """Run a daemon. Prints its URL, and runs until it is killed."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tokens").write_text(tokens)
        settings = 'token_file = "tokens"' if tokens else ""
        async with open_daemon(directory, "d1", "d2", work=_Session(), settings=settings, seconds=600) as daemon:
            await daemon.fleet.wait_registered()
            if not tokens:
                await daemon.wait_connected(2)
            click.echo(daemon.url)
            await trio.sleep_forever()


def run_daemon_process(tokens: str = "") -> Generator[str]:
    """Run a daemon as a process, and yield its URL."""
    command = [sys.executable, "-m", MODULE, tokens]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603  # ourselves
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], SECONDS)[0], "the daemon does not start"
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
