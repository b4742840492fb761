"""The directory of all devices: own ones as they are, others as their owners reported them."""

from __future__ import annotations

import attrs
import pytest
import trio

from galaxy_trio import ConnectionOptions, DeviceConfig, DeviceStatus, NoSuchDevice, open_constellation
from galaxy_trio.daemon.directory import Directory, remote_device, report_of
from galaxy_trio.daemon.store.records import Requirement
from galaxy_trio.testing.memory_fleet import open_memory_fleet

CONFIG = DeviceConfig("far", "ws://aip.test/ws", os="linux", capabilities=["shell"])


async def test_another_daemon_sees_a_device_as_its_owner_reported_it() -> None:
    with trio.fail_after(10):
        async with (
            open_memory_fleet("far") as fleet,
            open_constellation(fleet.configs, connect=fleet.connect) as elsewhere,
            open_constellation([]) as constellation,
        ):
            await elsewhere.wait_connected()
            device = elsewhere.devices["far"]
            remote = remote_device(device.config, report_of(device), "a")
            assert remote.statistics.status is DeviceStatus.IDLE
            assert remote.statistics.connection is not None
            directory = Directory(constellation, "b")
            directory.set_remote({"far": remote})
            assert directory.statistics() == [remote.statistics]
            assert directory.owner_of("far") == "a"
            assert Directory(elsewhere, "a").owner_of("far") == "a"
            state, own = directory.state_of("far"), Directory(elsewhere, "a").state_of("far")
            assert own is not None
            assert own.connected
            assert own.known
            # Tasks may wait for it, and do not run on it here.
            assert state == attrs.evolve(own, connected=False)


async def test_a_device_without_an_owner_is_disconnected_and_tasks_may_wait_for_it() -> None:
    async with (
        open_memory_fleet("far") as fleet,
        open_constellation(fleet.configs, connect=fleet.connect) as elsewhere,
        open_constellation([]) as constellation,
    ):
        await elsewhere.wait_connected()
        remote = remote_device(CONFIG, report_of(elsewhere.devices["far"]), None)
        assert remote.statistics.status is DeviceStatus.DISCONNECTED
        assert remote.statistics.problem == "no daemon owns it at the moment"
        directory = Directory(constellation, "b")
        directory.set_remote({"far": remote})
        assert directory.owner_of("far") is None
        assert directory.reason_to_fail(Requirement("far")) is None


async def test_a_device_that_was_never_connected_has_its_configuration() -> None:
    async with open_constellation([]) as constellation:
        directory = Directory(constellation, "b")
        directory.set_remote({"far": remote_device(CONFIG, None, "a")})
        state = directory.state_of("far")
        assert state is not None
        assert (state.os, state.capabilities, state.known) == ("linux", frozenset({"shell"}), False)
        assert directory.state_of("missing") is None
        # What it can do may come with its information.
        assert directory.reason_to_fail(Requirement(os="linux", capabilities=("camera",))) is None
        assert directory.reason_to_fail(Requirement(os="windows")) == (
            "no device for this task: none runs 'windows'; there are: 'linux'"
        )


async def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    async with open_constellation([DeviceConfig("near", "ws://127.0.0.1:9/", auto_connect=False)]) as constellation:
        directory = Directory(constellation, "b")
        directory.set_remote({"far": remote_device(CONFIG, None, None)})
        assert list(directory.names) == ["near", "far"]
        directory.check("near")
        directory.check("far")
        with pytest.raises(NoSuchDevice, match="there is no device 'fare'; did you mean 'far'"):
            directory.check("fare")


async def test_tasks_fail_with_the_reason_for_which_each_device_was_given_up() -> None:
    options = ConnectionOptions(connect_timeout=5)
    near = DeviceConfig("near", "ws://127.0.0.1:9/", os="linux", max_retries=0)
    with trio.fail_after(10):
        async with (
            open_memory_fleet("far") as fleet,
            open_constellation([near], options=options) as constellation,
        ):
            await constellation.devices["near"].wait_status(DeviceStatus.FAILED)
            directory = Directory(constellation, "b")
            why = directory.reason_to_fail(Requirement("near"))
            assert why == str(constellation.devices["near"].failure)
            failed = remote_device(CONFIG, report_of(constellation.devices["near"]), "a")
            directory.set_remote(
                {"far": attrs.evolve(failed, statistics=attrs.evolve(failed.statistics, device_id="far"))}
            )
            text = directory.reason_to_fail(Requirement("far"))
            assert text == failed.statistics.problem
            both = directory.reason_to_fail(Requirement(os="linux"))
            assert both is not None
            assert both.startswith("no device for this task: 'near' would fit, but was given up: ")
            assert "; 'far' would fit, but was given up: " in both
            assert directory.reason_to_fail(Requirement("gone")) == "device 'gone' was removed"
            assert fleet.configs


async def test_without_devices_every_task_fails() -> None:
    async with open_constellation([]) as constellation:
        directory = Directory(constellation, "b")
        assert directory.reason_to_fail(Requirement()) == "no device for this task: there are no devices"
