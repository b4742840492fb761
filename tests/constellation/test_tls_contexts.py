"""Certificates are loaded for each connection, once for devices that connect together; invalid ones give a device up."""

from __future__ import annotations

import gc
import ssl
import threading
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme

from galaxy_trio import ConfigError, ConnectFailed, NoSuchDevice
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.constellation.tls_contexts import FRESH, TlsContexts
from galaxy_trio.events import DeviceStatus
from tests.constellation.support.fleet import Fleet, open_fleet
from tests.constellation.support.scripted_server import LongestWaits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    Connect = Callable[[DeviceConfig], Awaitable[trio.abc.Stream]]


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


@pytest.mark.usefixtures("without_threads")
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


@pytest.mark.usefixtures("without_threads")
async def test_file_without_certificates_gives_the_device_up_and_connect_tries_again(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], autojump_clock: MockClock
) -> None:
    ca_file = tmp_path / "ca.pem"
    async with open_secure_fleet(authorities[0], "a") as (_fleet, connect):
        async with open_constellation([secure_config("a", ca_file)], connect=connect) as constellation:
            device = constellation.devices["a"]
            with pytest.raises(
                ConfigError, match=f"device 'a': the certificates cannot be read from {ca_file}: No such file"
            ):
                await constellation.wait_connected()
            ca_file.write_text("none at all")
            with pytest.raises(ConfigError, match="it contains no certificates in PEM format"):
                await device.connect()
            assert isinstance(device.failure, ConfigError)
            authorities[0].cert_pem.write_to_path(str(ca_file))
            await device.connect()
            assert (device.status, trio.current_time()) == (DeviceStatus.IDLE, 0)


@pytest.mark.usefixtures("without_threads")
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


@pytest.mark.usefixtures("without_threads")
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
