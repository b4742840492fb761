"""A device's profile after its information has arrived, at the first connection and at later ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import DeviceInfo, NoSuchDevice
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.constellation.profile import DeviceProfile, profile_of
from galaxy_trio.events import DeviceDisconnected, InformationUpdated, LateReplyReceived
from galaxy_trio.messages import JSON, ServerMessageType, TaskStatus
from tests.constellation.support.calls import open_world
from tests.constellation.support.fleet import device_config, recording
from tests.constellation.support.scripted_server import open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

FULL: dict[str, JSON] = {
    "platform": "windows",
    "os_version": "10.0.26100",
    "cpu_count": 16,
    "memory_total_gb": 31.75,
    "hostname": "desk",
    "ip_address": "10.0.0.7",
    "supported_features": ["gui", "cli", "gui", "office"],
    "platform_type": "computer",
    "schema_version": "1.0",
    "custom_metadata": {"room": {"floor": 2}},
    "tags": ["lab", "fast"],
    "screens": [1, {"width": 1920}],
}


async def profiles(*informations: JSON, **configured: object) -> list[DeviceProfile]:
    """Return the configured profile, and the profile after each connection with this information."""
    async with open_scripted_server() as server:
        server.info = list(informations)
        config = device_config("a", auto_connect=False, **configured)
        async with open_constellation([config], connect=server.connect) as constellation:
            device = constellation.devices["a"]
            found = [device.profile]
            for _ in informations:
                await device.reconnect()
                found.append(device.profile)
            return found


async def test_profile_is_the_configuration_until_the_information_arrives(autojump_clock: MockClock) -> None:
    [profile] = await profiles(os="linux", capabilities=["b", "a", "b"], metadata={"room": 1})
    assert profile == DeviceProfile("a", "linux", ("b", "a"), {"room": 1}, {}, {}, (), known=False)


async def test_profile_contains_every_part_of_the_information(autojump_clock: MockClock) -> None:
    _, profile = await profiles(FULL, os="linux", capabilities=["server", "cli"], metadata={"configured": True})
    assert profile == DeviceProfile(
        "a",
        os="windows",
        capabilities=("server", "cli", "gui", "office"),
        metadata={"configured": True},
        system_info={
            "platform": "windows",
            "os_version": "10.0.26100",
            "cpu_count": 16,
            "memory_total_gb": 31.75,
            "hostname": "desk",
            "ip_address": "10.0.0.7",
            "platform_type": "computer",
            "schema_version": "1.0",
            "screens": [1, {"width": 1920}],
        },
        custom_metadata={"room": {"floor": 2}},
        tags=("lab", "fast"),
        known=True,
    )


async def test_features_follow_the_configured_capabilities_in_order_without_duplicates(
    autojump_clock: MockClock,
) -> None:
    features: JSON = ["z", "b", "z", "y", "a"]
    info: JSON = {"platform": "linux", "supported_features": features}
    found = await profiles(info, info, info, capabilities=["b", "c", "b"])
    assert [profile.capabilities for profile in found] == [("b", "c")] + [("b", "c", "z", "y", "a")] * 3


@pytest.mark.parametrize(
    ("platform", "os"),
    [
        *((name, name) for name in ("windows", "linux", "darwin", "android", "ios", "templeos")),
        ("Linux", "linux"),
        ("macOS", "darwin"),
        ("unknown", "configured"),
        ("", "configured"),
    ],
)
async def test_platform_becomes_the_os_if_it_says_anything(platform: str, os: str, autojump_clock: MockClock) -> None:
    _, profile = await profiles({"platform": platform}, os="configured")
    assert profile.os == os
    assert type(profile.os) is str
    assert profile.known


async def test_tasks_select_a_device_by_its_information(autojump_clock: MockClock) -> None:
    async with open_world("a") as world:
        constellation = world.constellation
        await world.fleet.add_device("b", "templeos", ["holy"])
        device = constellation.add_device(device_config("b", os="linux", capabilities=["configured"]))
        await device.wait_connected()
        assert (await constellation.run_task("echo", os="TempleOS")).device_id == "b"
        assert (await constellation.run_task("echo", capabilities=["holy", "configured"])).device_id == "b"
        with pytest.raises(NoSuchDevice, match="none that runs 'linux' has 'configured'"):
            await constellation.run_task("echo", os="linux", capabilities=["configured"])


@pytest.mark.parametrize("first", [None, "nothing", {"platform": 7}, {"platform": "linux"}], ids=repr)
async def test_missing_information_means_departure_only_if_there_was_information_before(
    first: JSON, autojump_clock: MockClock
) -> None:
    async with open_scripted_server() as server, open_background() as nursery:
        server.info = [first, "nothing " * 100_000, "nothing"]
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            nursery.start_soon(constellation.run_task, "fails")
            await trio.testing.wait_all_tasks_blocked()
            server.peer.end(server.tasks[0], status=TaskStatus.FAILED, error="it did not work")
            await trio.testing.wait_all_tasks_blocked()
            knew = isinstance(first, dict) and first["platform"] == "linux"
            assert constellation.devices["a"].connected != knew
            assert len(str(constellation.devices["a"].statistics().problem)) < 1000
        lost = [event for event in journal.of(DeviceDisconnected) if isinstance(event, DeviceDisconnected)]
        assert [event.next_try is not None for event in lost] == [True] * knew


async def test_new_information_replaces_the_previous_one(autojump_clock: MockClock) -> None:
    _, first, second = await profiles(FULL, {"platform": "linux"}, capabilities=["server", "gui"], metadata={"m": 1})
    assert first.capabilities == ("server", "gui", "cli", "office")
    assert second == DeviceProfile("a", "linux", ("server", "gui"), {"m": 1}, second.system_info, {}, (), known=True)
    assert {key: value for key, value in second.system_info.items() if value} == {"platform": "linux"}


LARGE: dict[str, JSON] = {"platform": "linux", "supported_features": [str(number) for number in range(5_000)]}
BROKEN: list[JSON] = [
    {"platform": 7},
    {"platform": "linux", "supported_features": "gui"},
    {"platform": "linux", "cpu_count": "many"},
    {},
    [1, 2],
    7,
]


@pytest.mark.parametrize("bad", [*BROKEN, LARGE, "no information", None], ids=lambda bad: repr(bad)[:40])
async def test_device_is_connected_without_information_and_keeps_its_profile(
    bad: JSON, autojump_clock: MockClock
) -> None:
    before, at_first, good, later = await profiles(bad, FULL, bad, os="linux", capabilities=["c"])
    assert at_first == before
    assert not at_first.known
    assert good.os == "windows"
    assert later == good


@pytest.mark.parametrize("bad", [{"platform": 7}, LARGE, "no information"], ids=lambda bad: repr(bad)[:40])
async def test_information_is_requested_again_until_it_arrives(bad: JSON, autojump_clock: MockClock) -> None:
    async with open_scripted_server() as server:
        server.info = [bad]
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            await trio.sleep(100)
            [profile] = [device.profile for device in constellation.devices.values()]
            assert not profile.known
            server.info = [FULL]
            # A task that requires its information waits already.
            with trio.fail_after(31):
                async with constellation.reserve(os="windows"):
                    pass
            # The information is not requested again.
            server.info = [{"platform": "linux"}]
            await trio.sleep(100)
        assert len(journal.of(InformationUpdated)) == 1
        assert constellation.devices["a"].profile.os == "windows"


async def test_information_is_awaited_for_10_s_and_a_later_reply_is_late_and_unused(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.info = [None]
        async with (
            open_constellation([device_config("a")], connect=server.connect) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            assert trio.current_time() == 10
            server.peer.send(
                ServerMessageType.DEVICE_INFO_RESPONSE,
                response_id="device_info_1",
                result={"device_id": "a", "platform": "linux"},
            )
            await trio.testing.wait_all_tasks_blocked()
            assert len(journal.of(LateReplyReceived)) == 1
            assert not constellation.devices["a"].profile.known
            server.info = [{"platform": "darwin"}]
            assert (await constellation.devices["a"].device_info()).platform == "darwin"
        assert journal.of(InformationUpdated) == []


async def test_connection_lost_while_the_information_is_awaited_does_not_count_as_connected(
    autojump_clock: MockClock,
) -> None:
    async with open_scripted_server() as server:
        server.info = [None, {"platform": "linux"}]
        async with open_constellation([device_config("a")], connect=server.connect) as constellation:
            await trio.testing.wait_all_tasks_blocked()
            server.peer.reset()
            await constellation.wait_connected()
            assert trio.current_time() <= 1
            statistics = constellation.devices["a"].statistics()
            assert (statistics.connects, len(server.attempts), statistics.os) == (1, 2, "linux")


async def test_information_of_another_device_does_not_change_the_device_id(autojump_clock: MockClock) -> None:
    _, profile = await profiles({"device_id": "another", "platform": "linux"})
    assert profile.device_id == "a"
    assert "device_id" not in profile.system_info


_names = st.lists(st.text(max_size=3), max_size=6)


@given(configured=_names, features=_names)
def test_capabilities_are_configured_ones_then_features_without_duplicates(
    configured: list[str], features: list[str]
) -> None:
    config = device_config("a", capabilities=configured)
    found = profile_of(config, DeviceInfo("a", "linux", supported_features=features)).capabilities
    assert len(set(found)) == len(found)
    assert set(found) == {*configured, *features}
    count = len(set(configured))
    assert list(found[:count]) == sorted(set(configured), key=configured.index)
    assert list(found[count:]) == sorted(set(features) - set(configured), key=features.index)


async def test_information_within_the_limit_of_256_kib_is_used_whole(autojump_clock: MockClock) -> None:
    features: JSON = [f"feature {number}" for number in range(3_000)]
    _, profile = await profiles({"platform": "linux", "supported_features": features})
    assert list(profile.capabilities) == features


@pytest.mark.parametrize(
    "member",
    [
        {"supported_features": ["x" * 2**18]},
        {"custom_metadata": {"deep": [[["x"] * 40_000]]}},
        {"tags": [""] * 40_000},
        {"other": {str(number): None for number in range(4_000)}},
        {"hostname": "x" * 2**18},
    ],
    ids=lambda member: next(iter(member)),
)
async def test_information_that_takes_much_memory_in_any_member_is_ignored(
    member: dict[str, JSON], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    before, profile = await profiles({"platform": "linux", **member})
    assert profile == before
    assert "information about device 'a' is ignored, because it takes more than 262,144 bytes" in caplog.text
