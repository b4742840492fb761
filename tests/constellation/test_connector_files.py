"""Tokens and certificates are read again for each connection: rotated, missing for a moment, invalid, or on a hanging disk."""

from __future__ import annotations

import gc
import ssl
import threading
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
import trio.testing
import trustme

from galaxy_trio import ConfigError, ConnectFailed, NoSuchDevice
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.constellation.tls_contexts import FRESH, TlsContexts
from galaxy_trio.events import DeviceStatus
from galaxy_trio.testing import open_memory_server
from tests.constellation.support.fleet import Fleet, device_config, open_fleet
from tests.constellation.support.scripted_server import LongestWaits, open_scripted_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    Connect = Callable[[DeviceConfig], Awaitable[trio.abc.Stream]]

T = TypeVar("T")


@pytest.fixture
def files_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without threads: an autojump clock does not wait for them."""

    async def run_sync(work: Callable[..., T], *args: object, **_: object) -> T:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@pytest.mark.usefixtures("files_are_read_at_once")
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


@pytest.mark.usefixtures("files_are_read_at_once")
async def test_token_file_that_is_missing_for_a_moment_is_read_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    token_file = tmp_path / "token"
    async with open_scripted_server() as server:
        config = device_config("a", token_file=str(token_file))
        async with open_constellation([config], connect=server.connect, random=LongestWaits()) as constellation:
            device = constellation.devices["a"]
            await trio.sleep(2)
            assert (server.attempts, device.failure) == ([], None)
            assert f"cannot be read from {token_file}: No such file" in str(device.statistics().problem)
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


@pytest.mark.usefixtures("files_are_read_at_once")
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
            with pytest.raises(ConfigError, match="environment variable GALAXY_TEST_TOKEN: it is not set"):
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
                configs, connect=server.connect, connect_timeout=20, random=LongestWaits()
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


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """Two certificate authorities: the server's and another one."""
    return trustme.CA(), trustme.CA()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Record the files from which certificates are loaded."""
    files: list[str | None] = []
    create = ssl.create_default_context

    def create_default_context(*, cafile: str | None) -> ssl.SSLContext:
        files.append(cafile)
        return create(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", create_default_context)
    return files


@asynccontextmanager
async def open_secure_fleet(authority: trustme.CA, *device_ids: str) -> AsyncGenerator[tuple[Fleet, Connect]]:
    """Open devices on a server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with authority.issue_cert("server.test").private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    async with open_fleet(*device_ids) as fleet:

        async def connect(_: DeviceConfig) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            assert fleet.server is not None
            client_end, server_end = trio.testing.memory_stream_pair()
            secure = trio.SSLStream(server_end, context, server_side=True, https_compatible=True)
            fleet.nursery.start_soon(fleet.server.serve_stream, secure)
            return client_end

        yield fleet, connect


def secure_config(device_id: str, ca_file: Path) -> DeviceConfig:
    return DeviceConfig(device_id, "wss://server.test/ws", ca_file=str(ca_file))


@pytest.mark.usefixtures("files_are_read_at_once")
async def test_untrusted_certificate_gives_the_device_up_and_connect_tries_again(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], autojump_clock: MockClock
) -> None:
    right, wrong = authorities
    ca_file = tmp_path / "ca.pem"
    wrong.cert_pem.write_to_path(str(ca_file))
    async with open_secure_fleet(right, "a") as (_fleet, connect):
        async with open_constellation([secure_config("a", ca_file)], connect=connect) as constellation:
            device = constellation.devices["a"]
            for wait in (device.wait_connected, constellation.wait_connected, device.device_info, device.reconnect):
                with pytest.raises(ConnectFailed, match="the server's certificate is not accepted"):
                    await wait()
            with pytest.raises(ConnectFailed, match="the server's certificate is not accepted"):
                await device.run_task("echo 1")
            with pytest.raises(NoSuchDevice, match="the server's certificate is not accepted"):
                await constellation.run_task("echo 1")
            assert (device.status, trio.current_time()) == (DeviceStatus.FAILED, 0)
            # No time has passed: a file that was replaced is reloaded nevertheless.
            ca_file.unlink()
            right.cert_pem.write_to_path(str(ca_file))
            await device.reconnect()
            assert (await device.run_task("echo 1")).unwrap() == {"device": "a", "echo": "1"}


@pytest.mark.usefixtures("files_are_read_at_once")
async def test_file_without_certificates_gives_the_device_up_and_connect_tries_again(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], autojump_clock: MockClock
) -> None:
    ca_file = tmp_path / "ca.pem"
    async with open_secure_fleet(authorities[0], "a") as (_fleet, connect):
        async with open_constellation([secure_config("a", ca_file)], connect=connect) as constellation:
            device = constellation.devices["a"]
            with pytest.raises(ConfigError, match=f"for device 'a' cannot be read from {ca_file}: No such file"):
                await constellation.wait_connected()
            ca_file.write_text("none at all")
            with pytest.raises(ConfigError, match="it contains no certificates in PEM format"):
                await device.connect()
            assert isinstance(device.failure, ConfigError)
            authorities[0].cert_pem.write_to_path(str(ca_file))
            await device.connect()
            assert (device.status, trio.current_time()) == (DeviceStatus.IDLE, 0)


@pytest.mark.usefixtures("files_are_read_at_once")
async def test_devices_that_connect_together_load_a_file_once(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], loaded: list[str | None], autojump_clock: MockClock
) -> None:
    files = [tmp_path / "one.pem", tmp_path / "two.pem"]
    for file in files:
        authorities[0].cert_pem.write_to_path(str(file))
    names = [f"d{number}" for number in range(20)]
    async with open_secure_fleet(authorities[0], *names) as (fleet, connect):
        configs = [secure_config(name, files[number % 2]) for number, name in enumerate(names)]
        async with open_constellation(configs, connect=connect, random=LongestWaits()) as constellation:
            await constellation.wait_connected()
            assert sorted(map(str, loaded)) == sorted(map(str, files))
            for name in names:
                await constellation.devices[name].run_task("echo 1")
            assert len(loaded) == 2
            await trio.sleep(FRESH)
            for _ in range(2):
                await constellation.devices["d0"].reconnect()
                assert loaded[2:] == [str(files[0])]
        assert fleet.server is not None


async def test_next_caller_loads_the_certificates_after_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, going = threading.Semaphore(0), threading.Event()
    create = ssl.create_default_context

    def create_slowly(*, cafile: str | None) -> ssl.SSLContext:
        begun.release()
        going.wait()
        return create(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", create_slowly)
    certificates = TlsContexts()
    contexts: list[ssl.SSLContext] = []

    async def load() -> None:
        contexts.append(await certificates.context(None))

    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery, trio.open_nursery() as first:
                first.start_soon(load)
                await trio.to_thread.run_sync(begun.acquire)
                nursery.start_soon(load)
                nursery.start_soon(load)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel_scope.cancel()
                going.set()
    finally:
        going.set()
    assert len(contexts) == 2
    assert contexts[0] is contexts[1]


@pytest.mark.usefixtures("files_are_read_at_once")
async def test_unused_certificates_are_dropped(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], autojump_clock: MockClock
) -> None:
    file = tmp_path / "ca.pem"
    authorities[0].cert_pem.write_to_path(str(file))
    certificates = TlsContexts()
    kept = weakref.ref(await certificates.context(str(file)))
    assert kept() is not None
    await trio.sleep(FRESH)
    await certificates.context(None)
    gc.collect()
    assert kept() is None
