"""An operating system can be named by AIP's name or by a common one, wherever one is named."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import DeviceConfig, DeviceInfo, NoSuchDevice
from galaxy_trio.constellation.profile import contradiction_of, profile_of
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.constellation.systems import is_system, known_system, system_name
from galaxy_trio.events import DeviceNeedsAttention, InformationUpdated
from galaxy_trio.messages import Platform
from tests.constellation.support.calls import open_world
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize(
    ("names", "system"),
    [
        (("darwin", "Darwin", "mac", "macOS", "MacOS", "osx", "OS X", "Mac OS X", "mac-os", "mac_os"), "darwin"),
        (("windows", "Windows", "win", "WIN32", "win64", "Windows_NT", "Microsoft Windows"), "windows"),
        (("linux", "Linux", "GNU/Linux", "linux2"), "linux"),
        (("android", "Android OS"), "android"),
        (("ios", "iOS", "iPhone OS", "iPadOS"), "ios"),
        (("TempleOS",), "TempleOS"),
        # What a task requires is not simplified: no device could be found for it, which is better than another version's.
        (("Windows 11",), "Windows 11"),
    ],
)
def test_common_names_are_replaced_by_those_of_aip(names: tuple[str, ...], system: str) -> None:
    for name in names:
        assert system_name(name) == system
        assert is_system(system, name)
        assert is_system(name, system.upper())


def test_any_system_is_the_required_one_if_none_is_and_an_unknown_one_never() -> None:
    assert is_system(None, None)
    assert is_system("linux", None)
    assert not is_system(None, "linux")
    assert not is_system("linux", "windows")
    assert [known_system(name) for name in (None, "", " ", "unknown", "Unknown", "macOS")] == [None] * 5 + ["darwin"]


@pytest.mark.parametrize(
    ("configured", "system"),
    [
        ("Windows 11", "windows"),
        ("win10", "windows"),
        ("Windows Server 2022", "windows"),
        ("macOS 14.2", "darwin"),
        ("Ubuntu 22.04 LTS", "linux"),
        ("Debian GNU/Linux 12", "linux"),
        ("Red Hat Enterprise Linux", "linux"),
        ("Android 14", "android"),
    ],
)
def test_a_version_or_distribution_of_a_device_is_its_system(configured: str, system: str) -> None:
    config = DeviceConfig("d", "ws://h", os=configured)
    # A task for the system waits for a device that is away.
    assert Requirements(os=system).could_fit(profile_of(config))
    assert contradiction_of(config, DeviceInfo("d", system)) is None
    assert contradiction_of(config, DeviceInfo("d", "TempleOS")) is not None
    assert known_system("11") == "11"


@pytest.mark.parametrize("configured", ["macOS", "osx", "Darwin"])
@pytest.mark.parametrize("required", ["mac", "MACOS", "darwin"])
def test_a_device_fits_by_its_configured_and_by_its_reported_system(configured: str, required: str) -> None:
    config = DeviceConfig("d", "ws://h", os=configured)
    before, after = profile_of(config), profile_of(config, DeviceInfo("d", Platform.DARWIN))
    assert (before.os, after.os) == ("darwin", "darwin")
    requirements = Requirements(os=required)
    assert requirements.could_fit(before)
    assert requirements.fit(after)
    assert contradiction_of(config, DeviceInfo("d", Platform.DARWIN)) is None


@pytest.mark.parametrize("configured", [None, "unknown", "Unknown", ""])
def test_a_device_whose_system_is_not_configured_contradicts_nothing(configured: str | None) -> None:
    config = DeviceConfig("d", "ws://h", os=configured)
    assert profile_of(config).os is None
    assert Requirements(os="linux").could_fit(profile_of(config))
    assert contradiction_of(config, DeviceInfo("d", "linux")) is None
    assert contradiction_of(DeviceConfig("d", "ws://h", os="linux"), DeviceInfo("d", "unknown")) is None


async def test_a_task_for_macos_runs_on_a_mac(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.fleet.add_device("mac", "darwin", [])
        device = world.constellation.add_device(device_config("mac", os="macOS"))
        await device.wait_connected()
        assert (await world.constellation.run_task("echo", os="macOS")).device_id == "mac"
        with pytest.raises(NoSuchDevice, match="none runs 'win'; there are: 'darwin'"):
            await world.constellation.run_task("echo", os="win")


async def test_a_contradicted_configuration_is_reported_with_both_systems_and_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "galaxy_trio.constellation")
    reason = (
        "its os is configured as 'Windows', and the device reports 'linux', which counts: correct its configuration"
    )
    async with open_world() as world, recording(world.constellation) as journal:
        await world.fleet.add_device("d", "linux", [])
        device = world.constellation.add_device(device_config("d", os="Windows", auto_connect=False))
        for _ in range(2):
            await device.reconnect()
        assert device.profile.os == "linux"
    seen = [event for event in journal.events if isinstance(event, InformationUpdated | DeviceNeedsAttention)]
    assert [type(event) for event in seen] == [InformationUpdated, DeviceNeedsAttention, InformationUpdated]
    assert [event.reason for event in seen if isinstance(event, DeviceNeedsAttention)] == [reason]
    assert [record.getMessage() for record in caplog.records] == [f"device 'd': {reason}"]
