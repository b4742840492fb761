"""A machine whose values are known, as pytest fixtures."""

from __future__ import annotations

import platform
import socket
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple, Self

import psutil
import pytest

from galaxy_trio import DeviceInfo, Platform, PlatformType
from galaxy_trio.agent import system_info

if TYPE_CHECKING:
    from collections.abc import Callable


DEVICE = "device_001"
DESKTOP = ["gui", "cli", "browser", "file_system", "office"]


class Address(NamedTuple):
    family: int
    address: str


def failing(error: BaseException) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail


def unknown(_: str) -> int:
    return -1


class Datagrams:
    """Replaces sockets: the local address for each address family, or no route."""

    def __init__(self) -> None:
        self.own: dict[int, str] = {}
        self.asked: list[tuple[str, int]] = []
        self.open = 0
        self.family = 0

    def make(self, family: int, kind: int) -> Datagrams:
        assert kind == socket.SOCK_DGRAM
        self.family = family
        return self

    def __enter__(self) -> Self:
        self.open += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.open -= 1

    def connect(self, address: tuple[str, int]) -> None:
        self.asked.append(address)
        if self.family not in self.own:
            raise OSError("network is unreachable")

    def getsockname(self) -> tuple[str, int]:
        return self.own[self.family], 40000


@pytest.fixture
def datagrams() -> Datagrams:
    return Datagrams()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, datagrams: Datagrams) -> SimpleNamespace:
    """Replace the socket module for `system_info` only, because trio uses sockets too."""
    members = {**vars(socket), "socket": datagrams.make, "gethostname": lambda: "edge-1"}
    network = SimpleNamespace(**members)
    network.gethostbyname = {"edge-1": "127.0.1.1"}.__getitem__
    monkeypatch.setattr(system_info, "socket", network)
    return network


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, datagrams: Datagrams, network: SimpleNamespace) -> DeviceInfo:
    """Replace every source of values by a known one."""
    monkeypatch.delenv("TERMUX_VERSION", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "version", lambda: "#1 SMP")
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16_384_000_000))
    datagrams.own[socket.AF_INET] = "10.0.0.1"
    return DeviceInfo(
        DEVICE,
        Platform.LINUX,
        os_version="#1 SMP",
        cpu_count=8,
        memory_total_gb=15.26,
        hostname="edge-1",
        ip_address="10.0.0.1",
        supported_features=[*DESKTOP, "linux_apps"],
        platform_type=PlatformType.COMPUTER,
        schema_version="1.0",
    )


@pytest.fixture
def without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
