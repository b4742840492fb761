"""The PostgreSQL server of the tests is removed, whatever ends them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.daemon.support.postgresql import find_programs
from tests.support.waiting import SECONDS, until

pytestmark = pytest.mark.daemon

_OPEN = """
import signal

from tests.daemon.support.postgresql import open_postgresql

# Programs that a shell runs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with open_postgresql() as server:
    print(server.directory, flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_server_ends_and_is_removed_when_the_process_that_started_it_is_killed(number: signal.Signals) -> None:
    find_programs()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process([sys.executable, "-c", _OPEN], stdin=-1, stdout=-1, stderr=-3)
            nursery.start_soon(process.wait)
            assert process.stdout is not None
            directory = Path((await process.stdout.receive_some()).decode().strip())
            postmaster = int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(postmaster, 0)
            process.send_signal(number)
    await until(lambda: not directory.exists() and not Path(f"/proc/{postmaster}").exists())
