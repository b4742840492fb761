"""The description of a machine: each value has fallbacks, or is None."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import attrs
import psutil
import pytest
import trio
import trio.testing

from galaxy_trio import DeviceInfo, Platform, PlatformType, open_connection
from galaxy_trio.agent import collect_system_info, open_device_connection
from galaxy_trio.testing import open_memory_server
from tests.agent.support.machine import DESKTOP, DEVICE, Address, Datagrams, failing, unknown

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_it_describes_this_machine() -> None:
    info = await collect_system_info(DEVICE)
    assert info.device_id == DEVICE
    assert info.platform == platform.system().lower()
    assert info.hostname == socket.gethostname()
    assert (info.cpu_count, info.os_version) == (psutil.cpu_count(), platform.version())
    assert info.memory_total_gb == round(psutil.virtual_memory().total / 2**30, 2)
    assert (info.platform_type, info.schema_version, info.custom_metadata) == (PlatformType.COMPUTER, "1.0", {})
    # It survives the wire.
    async with open_memory_server() as server:
        async with open_device_connection(server.url, DEVICE, system_info=info, stream=server.connect()):
            async with open_connection(server.url, DEVICE, stream=server.connect()) as connection:
                assert await connection.device_info() == info


async def test_it_describes_a_known_machine(machine: DeviceInfo) -> None:
    assert await collect_system_info(DEVICE) == machine


async def test_one_failing_value_does_not_affect_the_others(
    machine: DeviceInfo, network: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    for module, name in [
        (platform, "system"),
        (platform, "version"),
        (os, "cpu_count"),
        (os, "sysconf"),
        (network, "gethostname"),
        (network, "socket"),
    ]:
        monkeypatch.setattr(module, name, failing(RuntimeError("broken")), raising=False)
    assert await collect_system_info(DEVICE) == attrs.evolve(
        machine, os_version=None, cpu_count=None, memory_total_gb=None, hostname=None, ip_address=None
    )


@pytest.mark.parametrize(
    ("system", "expected", "features"),
    [
        ("Linux", Platform.LINUX, [*DESKTOP, "linux_apps"]),
        ("Windows", Platform.WINDOWS, [*DESKTOP, "windows_apps"]),
        ("Darwin", Platform.DARWIN, [*DESKTOP, "macos_apps"]),
        ("FreeBSD", "freebsd", []),
    ],
)
async def test_computer_has_its_platform_and_desktop_features(
    system: str, expected: Platform | str, features: list[str], machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    info = await collect_system_info(DEVICE)
    assert (info.platform, info.supported_features, info.platform_type) == (expected, features, PlatformType.COMPUTER)
    assert isinstance(info.platform, Platform) == isinstance(expected, Platform)


@pytest.mark.parametrize(
    ("system", "screens", "has_windows"),
    [
        ("Linux", {}, False),
        ("Linux", {"DISPLAY": "", "WAYLAND_DISPLAY": ""}, False),
        ("Linux", {"DISPLAY": ":0"}, True),
        ("Linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("Darwin", {}, True),
        ("Windows", {}, True),
    ],
)
async def test_linux_machine_without_a_screen_offers_nothing_that_opens_windows(
    system: str, screens: dict[str, str], has_windows: bool, machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screens.items():
        monkeypatch.setenv(name, value)
    features = (await collect_system_info(DEVICE)).supported_features
    assert ("gui" in features, "office" in features) == (has_windows, has_windows)
    assert {"cli", "browser", "file_system"} < set(features)


@pytest.mark.parametrize(
    ("build", "system", "expected"),
    [
        ("android", "Android", Platform.ANDROID),
        ("ios", "iOS", Platform.IOS),
        ("ios", "iPadOS", Platform.IOS),
    ],
)
async def test_mobile_has_its_platform_and_no_desktop_features(
    build: str, system: str, expected: Platform, machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", build)
    monkeypatch.setattr(platform, "system", lambda: system)
    info = await collect_system_info(DEVICE)
    assert (info.platform, info.supported_features, info.platform_type) == (expected, [], PlatformType.MOBILE)


async def test_termux_is_android_where_python_reports_linux(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMUX_VERSION", "0.118.0")
    info = await collect_system_info(DEVICE)
    assert (info.platform, info.supported_features, info.platform_type) == (Platform.ANDROID, [], PlatformType.MOBILE)


@pytest.mark.parametrize("answer", [failing(OSError("no uname")), str], ids=["fails", "says nothing"])
@pytest.mark.parametrize(
    ("build", "expected", "features"),
    [
        ("linux", Platform.LINUX, [*DESKTOP, "linux_apps"]),
        ("win32", Platform.WINDOWS, [*DESKTOP, "windows_apps"]),
        ("sunos5", "sunos5", []),
    ],
)
async def test_platform_falls_back_to_what_python_was_built_for(
    answer: Callable[[], object],
    build: str,
    expected: str,
    features: list[str],
    machine: DeviceInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "system", answer)
    monkeypatch.setattr(sys, "platform", build)
    info = await collect_system_info(DEVICE)
    assert (info.platform, info.supported_features, info.platform_type) == (expected, features, PlatformType.COMPUTER)


@pytest.mark.parametrize("answer", [failing(OSError("no uname")), str], ids=["fails", "says nothing"])
async def test_version_is_missing_if_it_is_unknown(
    answer: Callable[[], object], machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "version", answer)
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, os_version=None)


async def test_cores_without_psutil_come_from_the_standard_library(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert (await collect_system_info(DEVICE)).cpu_count == 3


@pytest.mark.parametrize("answer", [failing(PermissionError("/proc/stat")), lambda: None], ids=["fails", "is None"])
async def test_cores_come_from_the_standard_library_when_psutil_fails(
    answer: Callable[[], object], machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", answer)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, cpu_count=3)


async def test_cores_are_none_when_unknown(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (await collect_system_info(DEVICE)).cpu_count is None


async def test_memory_without_psutil_comes_from_the_system(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    sizes = {"SC_PHYS_PAGES": 1_000_000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert (await collect_system_info(DEVICE)).memory_total_gb == 3.81


async def test_memory_comes_from_the_system_when_psutil_fails(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", failing(NotImplementedError("here")))
    sizes = {"SC_PHYS_PAGES": 1_000_000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, memory_total_gb=3.81)


@pytest.mark.parametrize(
    "answer",
    [failing(ValueError("unrecognized configuration name")), failing(OSError("no such thing")), unknown],
    ids=["unknown name", "system error", "not known"],
)
async def test_memory_is_missing_if_it_is_unknown(
    answer: Callable[[str], object], machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    monkeypatch.setattr(os, "sysconf", answer, raising=False)
    assert (await collect_system_info(DEVICE)).memory_total_gb is None


async def test_memory_is_missing_if_the_standard_library_has_no_call_for_it(
    machine: DeviceInfo, monkeypatch: pytest.MonkeyPatch, without_psutil: None
) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert (await collect_system_info(DEVICE)).memory_total_gb is None


async def test_host_name_is_missing_if_it_is_unknown_and_the_address_is_still_found(
    machine: DeviceInfo, network: SimpleNamespace
) -> None:
    network.gethostname = failing(OSError("no name"))
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, hostname=None)


async def test_unsendable_host_name_is_left_out(machine: DeviceInfo, network: SimpleNamespace) -> None:
    network.gethostname = lambda: b"edge\xff".decode(errors="surrogateescape")
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, hostname=None)


async def test_address_is_probed_with_documentation_addresses_and_sockets_are_closed(
    machine: DeviceInfo, datagrams: Datagrams
) -> None:
    datagrams.own.clear()
    await collect_system_info(DEVICE)
    assert datagrams.asked == [("192.0.2.1", 9), ("2001:db8::1", 9)]
    assert datagrams.open == 0


async def test_machine_with_only_ipv6_has_its_ipv6_address(machine: DeviceInfo, datagrams: Datagrams) -> None:
    datagrams.own = {socket.AF_INET6: "2001:db8:7::5"}
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, ip_address="2001:db8:7::5")


@pytest.mark.parametrize("useless", ["0.0.0.0", "127.0.0.1", "169.254.7.7"])  # noqa: S104  # nothing listens
async def test_address_without_a_route_is_that_of_an_interface_that_is_up(
    useless: str, machine: DeviceInfo, datagrams: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    datagrams.own[socket.AF_INET] = useless
    interfaces = {
        "lo": [Address(socket.AF_INET, "127.0.0.1")],
        "down0": [Address(socket.AF_INET, "10.9.9.9")],
        "eth0": [
            Address(socket.AF_INET6, "fe80::1%eth0"),
            Address(socket.AF_INET, "169.254.1.1"),
            Address(socket.AF_INET, "10.0.0.7"),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(
        psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=name != "down0") for name in interfaces}
    )
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, ip_address="10.0.0.7")


async def test_address_without_psutil_and_a_route_is_resolved_from_the_host_name(
    machine: DeviceInfo, datagrams: Datagrams, without_psutil: None
) -> None:
    datagrams.own.clear()
    assert (await collect_system_info(DEVICE)).ip_address == "127.0.1.1"


@pytest.mark.parametrize("error", [socket.gaierror("unknown host"), UnicodeError("label too long")], ids=repr)
async def test_address_is_missing_if_it_is_unknown(
    error: Exception,
    machine: DeviceInfo,
    datagrams: Datagrams,
    network: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datagrams.own.clear()
    monkeypatch.setattr(psutil, "net_if_stats", failing(PermissionError("not allowed")))
    network.gethostbyname = failing(error)
    assert await collect_system_info(DEVICE) == attrs.evolve(machine, ip_address=None)


@attrs.define
class NameServer:
    """A name server that replies once released."""

    asked: trio.Event = attrs.field(factory=trio.Event)
    answer: threading.Event = attrs.field(factory=threading.Event)

    def ask(self, _: str) -> str:
        trio.from_thread.run_sync(self.asked.set)
        self.answer.wait(30)
        return "10.0.0.2"


@pytest.fixture
def name_server(
    machine: DeviceInfo, datagrams: Datagrams, network: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> NameServer:
    datagrams.own.clear()
    monkeypatch.setattr(psutil, "net_if_addrs", dict)
    name_server = NameServer()
    network.gethostbyname = name_server.ask
    return name_server


async def test_after_5_s_the_values_known_so_far_are_returned(
    machine: DeviceInfo, name_server: NameServer, mock_clock: trio.testing.MockClock
) -> None:
    collected: list[DeviceInfo] = []

    async def collect() -> None:
        collected.append(await collect_system_info(DEVICE))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await name_server.asked.wait()
            mock_clock.jump(4.9)
            await trio.testing.wait_all_tasks_blocked()
            assert collected == []
            mock_clock.jump(0.2)
    finally:
        name_server.answer.set()
    assert collected == [attrs.evolve(machine, ip_address=None)]


async def test_collecting_can_be_cancelled_while_a_name_server_does_not_answer(name_server: NameServer) -> None:
    collected: list[DeviceInfo] = []

    async def collect() -> None:
        collected.append(await collect_system_info(DEVICE))

    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(collect)
                await name_server.asked.wait()
                nursery.cancel_scope.cancel()
    finally:
        name_server.answer.set()
    assert collected == []


async def test_third_thread_is_not_started_and_the_description_has_the_known_values(
    machine: DeviceInfo, name_server: NameServer, mock_clock: trio.testing.MockClock
) -> None:
    collected: list[DeviceInfo] = []

    async def collect() -> None:
        collected.append(await collect_system_info(DEVICE))

    try:
        with trio.fail_after(60):
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(collect)
                    if len(collected) < 2:
                        await name_server.asked.wait()
                        name_server.asked = trio.Event()
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(5.1)
    finally:
        name_server.answer.set()
    partly = attrs.evolve(machine, ip_address=None)
    nothing = attrs.evolve(partly, os_version=None, cpu_count=None, memory_total_gb=None, hostname=None)
    assert collected == [partly, partly, nothing]


def test_thread_that_outlives_its_run_does_not_count_in_the_next(name_server: NameServer) -> None:
    collected: list[DeviceInfo] = []

    async def collect() -> None:
        with trio.fail_after(60):
            collected.append(await collect_system_info(DEVICE))

    async def cancel() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await name_server.asked.wait()
            nursery.cancel_scope.cancel()

    for _ in range(3):
        name_server.asked = trio.Event()
        trio.run(cancel)
    name_server.answer.set()
    trio.run(collect)
    assert [info.ip_address for info in collected] == ["10.0.0.2"]
