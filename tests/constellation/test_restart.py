"""A server restarts: running tasks are lost, queued tasks run afterwards, each once and in order."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, ConnectionOptions, TaskResult
from galaxy_trio._concurrency.background import open_background
from galaxy_trio.constellation.constellation import Constellation, open_constellation
from galaxy_trio.events import DeviceConnected, DeviceNeedsAttention, DeviceStatus, TaskEnded, TaskOutcome
from galaxy_trio.messages import TaskStatus
from galaxy_trio.server import ServerLimits
from galaxy_trio.testing import Conditions, FaultyStream, Network, open_memory_fleet
from tests.constellation.support.fleet import Fleet, device_config, open_fleet, recording
from tests.constellation.support.scripted_server import open_scripted_server

if TYPE_CHECKING:
    from trio.testing import MockClock

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.device import Device

pytestmark = pytest.mark.slow

DEVICES = [f"d{number:02}" for number in range(50)]


@attrs.define
class Outcomes:
    """The outcomes of the tasks."""

    results: dict[str, TaskResult] = attrs.field(factory=dict[str, TaskResult])
    errors: dict[str, Exception] = attrs.field(factory=dict[str, Exception])
    all_known: trio.Event = attrs.field(factory=trio.Event)

    async def of(self, device: Device, request: str) -> None:
        """Run a task, and record its result or error."""
        try:
            self.results[request] = await device.run_task(request, timeout=5000)
        except Exception as error:  # noqa: BLE001  # the test checks it
            self.errors[request] = error
        if len(self.results) + len(self.errors) == 3 * len(DEVICES):
            self.all_known.set()

    async def wait_all(self) -> None:
        """Wait until all are known."""
        with trio.fail_after(3000):
            await self.all_known.wait()


async def give_each_three_tasks(nursery: trio.Nursery, constellation: Constellation) -> Outcomes:
    """Start one task on each device, and two that wait."""
    outcomes = Outcomes()
    for request in ("wait {}", "echo {} second", "echo {} third"):
        for name, device in constellation.devices.items():
            nursery.start_soon(outcomes.of, device, request.format(name))
        await trio.testing.wait_all_tasks_blocked()
    for device in constellation.devices.values():
        assert (device.status, device.running, device.queued) == (DeviceStatus.BUSY, 1, 2)
    return outcomes


async def bring_back(fleet: Fleet) -> None:
    """Start the server again, and let its devices register."""
    await fleet.start_server()
    for name in DEVICES:
        await fleet.add_device(name)


def check_each_ran_once_and_in_order(fleet: Fleet, outcomes: Outcomes) -> None:
    begun = {name: [request for request in fleet.work.begun if name in request] for name in DEVICES}
    assert begun == {name: [f"wait {name}", f"echo {name} second", f"echo {name} third"] for name in DEVICES}
    for name in DEVICES:
        for rank in ("second", "third"):
            assert outcomes.results[f"echo {name} {rank}"].unwrap() == {"device": name, "echo": f"{name} {rank}"}
    assert fleet.work.ended == [request for request in fleet.work.ended if request.startswith("echo")]
    assert max(fleet.work.most.values()) == 1


async def test_running_tasks_are_lost_with_a_killed_server_and_queued_ones_run_afterwards(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(*DEVICES) as fleet, open_background() as nursery:
        async with (
            open_constellation(
                [device_config(name) for name in DEVICES], connect=fleet.connect, random=Random(5)
            ) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            outcomes = await give_each_three_tasks(nursery, constellation)
            await fleet.kill_server()
            assert outcomes.results == {}
            assert {request: type(error) for request, error in outcomes.errors.items()} == {
                f"wait {name}": ConnectionLost for name in DEVICES
            }
            assert [device.queued for device in constellation.devices.values()] == [2] * len(DEVICES)
            await trio.sleep(30)
            tries = len(fleet.connects)
            assert tries > 3 * len(DEVICES)
            await bring_back(fleet)
            await constellation.wait_connected()
            # A wait that began in the first 30 s lasts at most 4 s.
            assert trio.current_time() <= 34
            await outcomes.wait_all()
            check_each_ran_once_and_in_order(fleet, outcomes)
            assert len(outcomes.errors) == len(DEVICES)
            assert fleet.server is not None
            assert fleet.server.statistics().sessions == 0
        ended = [event for event in journal.of(TaskEnded) if isinstance(event, TaskEnded)]
        assert sum(event.outcome is TaskOutcome.LOST for event in ended) == len(DEVICES)
        assert sum(event.outcome is TaskOutcome.COMPLETED for event in ended) == 2 * len(DEVICES)
        assert len(journal.of(DeviceConnected)) == 2 * len(DEVICES)


async def test_running_tasks_fail_with_a_stopped_server_and_queued_ones_run_afterwards(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(*DEVICES) as fleet, open_background() as nursery:
        async with open_constellation(
            [device_config(name) for name in DEVICES], connect=fleet.connect, random=Random(6)
        ) as constellation:
            await constellation.wait_connected()
            outcomes = await give_each_three_tasks(nursery, constellation)
            await fleet.stop_server()
            await trio.sleep(5)
            ran = [outcomes.results.get(f"wait {name}") for name in DEVICES]
            failed = [result for result in ran if result is not None and result.status is TaskStatus.FAILED]
            lost = [error for error in outcomes.errors.values() if isinstance(error, ConnectionLost)]
            assert len(failed) + len(lost) == len(DEVICES)
            assert all("shutting down" in str(result.error) for result in failed)
            await bring_back(fleet)
            await outcomes.wait_all()
            check_each_ran_once_and_in_order(fleet, outcomes)


async def test_queued_tasks_run_after_a_restarted_server_has_refused_connections_for_a_while(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(*DEVICES) as fleet, open_scripted_server() as other, open_background() as nursery:
        forbidden = False

        async def connect(config: DeviceConfig) -> trio.abc.Stream:
            return await (other.connect(config) if forbidden else fleet.connect(config))

        other.then = 403
        async with (
            open_constellation(
                [device_config(name) for name in DEVICES], connect=connect, random=Random(7)
            ) as constellation,
            recording(constellation) as journal,
        ):
            await constellation.wait_connected()
            outcomes = await give_each_three_tasks(nursery, constellation)
            forbidden = True
            await fleet.kill_server()
            await trio.sleep(400)
            assert len(other.attempts) == 2 * len(DEVICES)
            forbidden = False
            await bring_back(fleet)
            await constellation.wait_connected()
            assert trio.current_time() <= 601
            await outcomes.wait_all()
            check_each_ran_once_and_in_order(fleet, outcomes)
        assert len(journal.of(DeviceNeedsAttention)) == 2 * len(DEVICES)


async def test_both_sides_notice_a_cut_network_and_the_tasks_run_afterwards(
    autojump_clock: MockClock,
) -> None:
    streams: list[FaultyStream] = []

    async with open_fleet(*DEVICES) as fleet, open_background() as nursery:

        async def connect(config: DeviceConfig) -> trio.abc.Stream:
            streams.append(FaultyStream(await fleet.connect(config)))
            return streams[-1]

        async with open_constellation(
            [device_config(name) for name in DEVICES],
            connect=connect,
            random=Random(8),
            options=ConnectionOptions(liveness_timeout=100),
        ) as constellation:
            await constellation.wait_connected()
            outcomes = await give_each_three_tasks(nursery, constellation)
            for stream in streams:
                stream.go_silent()
            await trio.sleep(99)
            assert outcomes.errors == {}
            await outcomes.wait_all()
            assert set(outcomes.errors) == {f"wait {name}" for name in DEVICES}
            assert all(isinstance(error, ConnectionLost) for error in outcomes.errors.values())
            check_each_ran_once_and_in_order(fleet, outcomes)


async def restart_server(devices: int, seed: int, away: float) -> tuple[float, list[float]]:
    """Kill the server of a fleet of agents, to which a constellation is connected, and start it again.

    Returns:
        Seconds from the server's return until all devices are connected again, and those until each connection was opened.
    """
    opened: list[float] = []
    names = [f"d{seed}-{number}" for number in range(devices)]
    network = Network(seed, Conditions(latency=0.001))
    with trio.fail_after(away + 60):
        async with (
            open_memory_fleet(*names, network=network, limits=ServerLimits(max_connections=1000)) as fleet,
            open_constellation(fleet.configs, connect=fleet.connect, random=Random(seed)) as constellation,
        ):
            await constellation.wait_connected()
            await fleet.kill_server()
            await trio.sleep(away)
            began = trio.current_time()
            fleet.on_link = lambda _: opened.append(trio.current_time() - began)
            await fleet.start_server()
            await constellation.wait_connected()
            return trio.current_time() - began, opened


@pytest.mark.parametrize(("devices", "away", "seed"), [(300, 2, 0), (300, 2, 1), (50, 29, 0), (50, 29, 1), (50, 29, 2)])
async def test_devices_reconnect_within_5_5_s_after_their_server_returns_and_spread_over_that_time(
    devices: int, away: float, seed: int, autojump_clock: MockClock
) -> None:
    seconds, opened = await restart_server(devices, seed, away)
    # An agent waits at most 4 s, its client at most 1 s more, and the rest is latency.
    assert seconds < 5.5
    # Each device takes two connections. Few more are refused because the device has not returned yet.
    assert 2 * devices <= len(opened) <= 5 * devices
    most = max(sum(at <= other < at + 0.1 for other in opened) for at in opened)
    assert most <= 0.35 * devices, most
