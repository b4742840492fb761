"""Checks with schemathesis that the daemon behaves as its OpenAPI document says.

Run as a program: `python -m tests.daemon.support.conformance`; nox has a session for it. The exit status is that of schemathesis.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from tests.daemon.support.daemon import open_daemon

TOKEN = "a-token-of-the-test"
SECONDS = 280.0


async def main(arguments: list[str]) -> int:
    """Run a daemon, and schemathesis against it. Return the exit status of schemathesis."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tokens").write_text(TOKEN)
        # A valid task may ask for what no device has: 422.
        (directory / "schemathesis.toml").write_text(
            "[checks.positive_data_acceptance]\n"
            'expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx"]\n'
        )
        async with open_daemon(
            directory, "d1", "d2", listen="127.0.0.1:0", settings='token_file = "tokens"\n', seconds=SECONDS
        ) as daemon:
            command = [
                str(Path(sys.executable).with_name("schemathesis")), "run", f"{daemon.url}/openapi.json",
                "--header", f"Authorization: Bearer {TOKEN}",
                # The stream never ends; test_events.py tests it.
                "--exclude-path", "/events",
                # A task that was cancelled with DELETE still exists, and not every task has a result.
                "--exclude-checks", "use_after_free,ensure_resource_availability",
                *arguments,
            ]  # fmt: skip
            # Its cache of crashes belongs to this run.
            return (await trio.run_process(command, check=False, cwd=directory)).returncode


if __name__ == "__main__":
    sys.exit(trio.run(partial(main, sys.argv[1:])))
