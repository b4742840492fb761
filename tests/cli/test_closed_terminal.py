"""A terminal that is closed ends what runs in it, in good order."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio._cli.signals import Interrupted, run_until_signalled
from tests.cli.support.command_line import DEVICE, call_process, open_process
from tests.cli.support.pseudo_terminal import open_terminal
from tests.cli.support.world import open_world
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.server import ServerTask

pytestmark = pytest.mark.daemon


def _configure(directory: Path, url: str = "ws://127.0.0.1:1") -> str:
    (directory / "devices.json").write_text(
        f'{{"devices": [{{"device_id": "{DEVICE}", "server_url": "{url}", "token_env": "GALAXY_TRIO_TOKEN"}}]}}'
    )
    (directory / "galaxy.toml").write_text('devices = "devices.json"\nlisten = "unix:s"\ndrain = 30\n')
    return str(directory / "galaxy.toml")


def _address(directory: Path) -> str:
    return f"unix:{directory / 's'}"


async def test_closed_terminal_ends_the_daemon_when_its_running_tasks_have_ended(tmp_path: Path) -> None:
    begun, finish, cancelled = trio.Event(), trio.Event(), trio.Event()

    async def session(task: ServerTask) -> object:
        begun.set()
        try:
            await finish.wait()
        except trio.Cancelled:
            cancelled.set()
            raise
        return task.request

    with trio.fail_after(SECONDS):
        async with (
            open_world(session) as server,
            open_terminal("daemon", "--config", _configure(tmp_path, server.url)) as terminal,
        ):
            await terminal.wait_for_output("unix:")
            submitted = await call_process("task", "submit", "x", "--device", DEVICE, "--url", _address(tmp_path))
            assert submitted.status == 0, submitted.err
            await begun.wait()
            terminal.close()
            # A shell sends it to its jobs as well, so that it arrives twice.
            terminal.process.send_signal(signal.SIGHUP)
            while "stopping" not in (await call_process("task", "retry", "x", "--url", _address(tmp_path))).err:
                pass
            finish.set()
            assert await terminal.end() == 0
    assert not cancelled.is_set()
    assert not (tmp_path / "s").exists()
    with closing(sqlite3.connect(tmp_path / "galaxy.db")) as database, database:
        [[state]] = database.execute("SELECT state FROM tasks").fetchall()
    assert state == "completed"


async def test_hangup_stays_ignored_under_nohup(tmp_path: Path) -> None:
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    async with open_terminal("daemon", "--config", _configure(tmp_path), prefix=ignore) as terminal:
        await terminal.wait_for_output("unix:")
        terminal.close()
        terminal.process.send_signal(signal.SIGHUP)
        assert (await call_process("task", "list", "--url", _address(tmp_path))).out == "no tasks\n"
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.end() == 0


async def test_hangup_stays_ignored_without_a_terminal(tmp_path: Path) -> None:
    config = _configure(tmp_path)
    code = f"import signal, runpy, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); sys.argv[1:] = ['daemon', '--config', {config!r}]"
    async with open_process(python=("-c", f"{code}; runpy.run_module('galaxy_trio', run_name='__main__')")) as process:
        await process.wait_for_output("unix:")
        process.send_signal(signal.SIGHUP)
        assert (await call_process("task", "list", "--url", _address(tmp_path))).out == "no tasks\n"
        process.send_signal(signal.SIGTERM)
        outcome = await process.end()
    assert outcome.status == 0
    assert "reloaded" not in outcome.err


async def test_hangup_reloads_the_configuration_of_a_daemon_without_a_terminal(tmp_path: Path) -> None:
    async with open_process("daemon", "--config", _configure(tmp_path)) as process:
        await process.wait_for_output("unix:")
        process.send_signal(signal.SIGHUP)
        await process.wait_for_output("the configuration was reloaded", "err")
        process.send_signal(signal.SIGTERM)
        assert (await process.end()).status == 0


async def test_closed_terminal_ends_an_agent_and_a_server() -> None:
    with trio.fail_after(SECONDS):
        async with open_terminal("server", "--port", "0") as server:
            url = (await server.wait_for_output("/ws")).split()[-1]
            async with open_terminal("agent", url, DEVICE) as agent:
                await agent.wait_for_output("registered")
                agent.close()
                assert await agent.end() == 0
            server.close()
            assert await server.end() == 0


async def test_closed_terminal_ends_the_task_of_a_command_on_the_server() -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def session(_: ServerTask) -> object:
        begun.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    with trio.fail_after(SECONDS):
        async with open_world(session) as server, open_terminal("run", server.url, DEVICE, "x") as terminal:
            await begun.wait()
            terminal.close()
            assert await terminal.end() != 0
            await cancelled.wait()


async def test_hangup_is_left_alone_if_it_is_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def work() -> str:
            signal.raise_signal(signal.SIGHUP)
            await trio.sleep(0.01)
            return "done"

        assert await run_until_signalled(work) == "done"
    finally:
        signal.signal(signal.SIGHUP, previous)


async def test_hangup_before_a_service_waits_cancels_it_and_later_ones_change_nothing() -> None:
    async def begin() -> None:
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep_forever()

    with trio.fail_after(SECONDS), pytest.raises(Interrupted):
        await run_until_signalled(begin, trio.Event())

    stop = trio.Event()

    async def serve() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.wait)
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked(0.01)
        return "ended in good order"

    with trio.fail_after(SECONDS):
        assert await run_until_signalled(serve, stop) == "ended in good order"
