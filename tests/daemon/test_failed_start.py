"""The reasons why the daemon does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import ConfigError
from galaxy_trio._concurrency.background import split_cancelled
from galaxy_trio.daemon.check import check_start
from galaxy_trio.daemon.run import run_daemon
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.web.listening import ListenError
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.daemon


async def _start(directory: Path) -> Exception:
    with pytest.RaisesGroup(pytest.RaisesExc(Exception), flatten_subgroups=True, allow_unwrapped=True) as caught:
        with trio.fail_after(60):
            await run_daemon(read_settings(directory / "galaxy.toml"), trio.Event(), on_listening=lambda _: None)
    _, error = split_cancelled(caught.value)
    assert isinstance(error, Exception)
    return error


@pytest.mark.usefixtures("each_database")
async def test_second_daemon_with_the_same_database_or_socket_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        error = await _start(tmp_path)
        settings = read_settings(tmp_path / "galaxy.toml")
        running = (await check_start(settings)).running
        assert running is not None
        if isinstance(settings.database, PostgresqlLocation):
            # Any number of daemons may use the database.
            assert isinstance(error, ListenError)
            assert running.startswith("its address is in use: a daemon is running with this configuration, unless ")
        else:
            assert isinstance(error, StoreError)
            assert "another daemon uses the database" in str(error)
            assert running == "a daemon is running with this configuration"
        # The settings of the database are lines of their own.
        lines = (tmp_path / "galaxy.toml").read_text().splitlines(keepends=True)
        others = [line for line in lines if not line.startswith(("database", "cluster"))]
        (tmp_path / "galaxy.toml").write_text('database = "other.db"\n' + "".join(others))
        error = await _start(tmp_path)
        assert isinstance(error, ListenError)
        assert "another daemon listens at" in str(error)
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"


async def test_daemon_with_a_port_in_use_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text('{"devices": [{"device_id": "d1", "server_url": "ws://server.test/ws"}]}')
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        (tmp_path / "galaxy.toml").write_text(f'devices = "devices.json"\nlisten = "127.0.0.1:{port}"')
        error = await _start(tmp_path)
    assert isinstance(error, ConfigError)
    assert str(error) == (
        f"the daemon cannot listen at http://127.0.0.1:{port}: another program listens there: stop it, or use another port"
    )


async def test_damaged_database_is_reported_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text('{"devices": [{"device_id": "d1", "server_url": "ws://server.test/ws"}]}')
    (tmp_path / "galaxy.toml").write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"')
    (tmp_path / "galaxy.db").write_bytes(b"not a database at all" * 100)
    (tmp_path / "galaxy.db").chmod(0o600)
    error = await _start(tmp_path)
    assert isinstance(error, StoreError)
    assert "the file is not a database: configure another path, or move the file away" in str(error)
    assert (tmp_path / "galaxy.db").read_bytes() == b"not a database at all" * 100
