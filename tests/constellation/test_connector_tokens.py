"""Tokens are read again for each connection: rotated, missing for a moment, invalid, or on a hanging disk."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio import ConfigError, ConnectionOptions
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import DeviceStatus
from galaxy_trio.testing import open_memory_server
from tests.constellation.support.fleet import device_config
from tests.constellation.support.scripted_server import LongestWaits, open_scripted_server

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


@pytest.mark.usefixtures("without_threads")
async def test_token_rotated_during_an_outage_is_used_at_the_next_attempt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("old\n")
    async with open_memory_server(token=["old", "new"]) as first, open_memory_server(token="new") as second:
        server, tries = first, list[float]()

        async def connect(_: DeviceConfig) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            tries.append(trio.current_time())
            return server.connect()

        async with open_constellation(
            [device_config("a", token_file=str(token_file))], connect=connect, random=LongestWaits()
        ) as constellation:
            # Device "a" is absent, so attempts are repeated, with the old token while the server accepts it.
            await trio.sleep(100)
            assert len(tries) > 7
            server = second
            await trio.sleep(100)
            assert "403" in str(constellation.devices["a"].statistics().problem)
            tries.clear()
            token_file.write_text("new\n")
            await trio.sleep(301)
            assert len(tries) >= 1
            assert "403" not in str(constellation.devices["a"].statistics().problem)


@pytest.mark.usefixtures("without_threads")
async def test_token_file_that_is_missing_for_a_moment_is_read_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    token_file = tmp_path / "token"
    async with open_scripted_server() as server:
        config = device_config("a", token_file=str(token_file))
        async with open_constellation([config], connect=server.connect, random=LongestWaits()) as constellation:
            device = constellation.devices["a"]
            await trio.sleep(2)
            assert (server.attempts, device.failure) == ([], None)
            assert "cannot be read from its file, whose name is not shown: No such file" in str(
                device.statistics().problem
            )
            token_file.write_text("one")
            await constellation.wait_connected()
            assert (trio.current_time(), server.peer.path) == (3, "/ws?token=one")
            token_file.unlink()
            server.peer.reset()
            await trio.sleep(1)
            token_file.write_bytes(b"\xff")
            await trio.sleep(10)
            assert "it is not UTF-8 text" in str(device.statistics().problem)
            token_file.write_text("another")
            await constellation.wait_connected()
            assert server.peer.path == "/ws?token=another"


@pytest.mark.usefixtures("without_threads")
async def test_each_connection_of_a_task_uses_the_current_token(tmp_path: Path, autojump_clock: MockClock) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("one")
    async with open_scripted_server() as server:
        config = device_config("a", token_file=str(token_file))
        async with open_constellation([config], connect=server.connect) as constellation:
            await constellation.wait_connected()
            token_file.write_text("two")
            with trio.move_on_after(1):
                await constellation.run_task("with the token of now")
            assert [each.peer.path for each in server.attempts if each.peer] == ["/ws?token=one", "/ws?token=two"]


async def test_token_variable_is_read_again_and_its_absence_is_raised_immediately(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.delenv("GALAXY_TEST_TOKEN", raising=False)
    async with open_scripted_server() as server:
        config = device_config("a", token_env="GALAXY_TEST_TOKEN")
        async with open_constellation([config], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            with pytest.raises(ConfigError, match="the environment variable that token_env names is not set"):
                await constellation.wait_connected()
            assert (device.status, trio.current_time()) == (DeviceStatus.FAILED, 0)
            monkeypatch.setenv("GALAXY_TEST_TOKEN", "s3cr3t\udcff")
            with pytest.raises(ConfigError, match="it is not valid UTF-8") as caught:
                await device.reconnect()
            assert "s3cr3t" not in str(caught.value)
            for token in ("one", "two"):
                monkeypatch.setenv("GALAXY_TEST_TOKEN", token)
                await device.reconnect()
                assert server.peer.path == f"/ws?token={token}"


async def test_hanging_disk_times_out_like_a_server_and_does_not_delay_other_devices(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    answers = threading.Event()

    def hang(config: DeviceConfig) -> str | None:
        if config.token_file is not None:
            answers.wait()
        return None

    async with open_scripted_server() as server:
        configs = [device_config(f"a{number}", token_file="/mnt/token") for number in range(30)]
        configs += [DeviceConfig("b", "ws://other.test/ws")]
        monkeypatch.setattr(DeviceConfig, "read_token", hang)
        try:
            async with open_constellation(
                configs, connect=server.connect, options=ConnectionOptions(connect_timeout=20), random=LongestWaits()
            ) as constellation:
                await constellation.devices["b"].wait_connected()
                assert trio.current_time() == 0
                assert await constellation.devices["a7"].wait_status(DeviceStatus.DISCONNECTED, DeviceStatus.FAILED)
                assert 20 <= trio.current_time() <= 60
                problem = str(constellation.devices["a7"].statistics().problem)
                assert problem == "the token or the certificates of device 'a7' could not be read within 20 s"
                assert constellation.devices["a7"].failure is None
        finally:
            answers.set()
