"""The fixture, the examples of the how-to, and the fleet in memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from galaxy_trio import ConnectionLost, ConnectionOptions, open_connection
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.testing import MemoryFleet, open_memory_fleet, run
from tests.constellation.support.calls import start
from tests.support.paths import DOCS

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from galaxy_trio.server import ServerTask

EXAMPLES = DOCS / "examples" / "testing"


@pytest.mark.devices("a", "b")
async def test_fixture_has_the_devices_of_the_marker(memory_fleet: MemoryFleet) -> None:
    await trio.lowlevel.checkpoint()
    assert memory_fleet.server is not None
    assert sorted(memory_fleet.server.devices) == sorted(memory_fleet.running) == ["a", "b"]


async def test_fixture_has_one_device_by_default(memory_fleet: MemoryFleet) -> None:
    async with open_connection(memory_fleet.url, "device_001", stream=await memory_fleet.connect()) as connection:
        assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}


def _pytest(folder: Path, *arguments: str) -> str:
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n", encoding="utf-8")
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(  # noqa: S603  # ourselves
        [sys.executable, "-c", program, "-p", "no:randomly", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.programs
def test_examples_of_the_how_to_pass(tmp_path: Path) -> None:
    for example in EXAMPLES.iterdir():
        if example.suffix == ".py":
            shutil.copy(example, tmp_path)
    assert "2 passed" in _pytest(tmp_path)


@pytest.mark.programs
def test_without_pytest_trio_the_fixture_names_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(memory_fleet): ...\n", encoding="utf-8")
    # Hides the installed package.
    (tmp_path / "pytest_trio.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    out = _pytest(tmp_path, "-c", "/dev/null", "-p", "no:trio")
    assert "the fixture memory_fleet needs pytest-trio: pip install pytest-trio" in out


async def test_killed_device_fails_its_tasks_and_a_stopped_one_can_be_started_again(autojump_clock: MockClock) -> None:
    async def wait(task: ServerTask) -> object:
        await trio.sleep(0 if task.request == "quick" else 1000)
        return task.device_id

    async with open_memory_fleet("a", session=wait) as fleet:
        async with (
            open_constellation(fleet.configs, connect=fleet.connect) as constellation,
            trio.open_nursery() as nursery,
        ):
            await constellation.wait_connected()
            device = constellation.devices["a"]
            running = await start(nursery, partial(device.run_task, "slow"))
            await fleet.kill_device("a")
            await running.ended.wait()
            assert "device disconnected" in str(running.ending)
            await fleet.start_device("a")
            # The device is running already.
            await fleet.start_device("a")
            assert (await device.run_task("quick")).unwrap() == "a"
            await fleet.stop_device("a")
            assert fleet.running == []
            await trio.testing.wait_all_tasks_blocked()
            assert fleet.server is not None
            assert fleet.server.devices == []


async def test_stopped_or_killed_server_can_be_started_again(autojump_clock: MockClock) -> None:
    async with open_memory_fleet("a") as fleet:
        for end, reason in ((fleet.stop_server, "1001, going away"), (fleet.kill_server, "without a close")):
            async with open_connection(fleet.url, "a", stream=await fleet.connect()) as connection:
                await end()
                lost = await connection.wait_closed()
            assert isinstance(lost, ConnectionLost)
            assert reason in str(lost)
            with pytest.raises(ConnectionRefusedError):
                await fleet.connect()
            await fleet.start_server()
            # A server is running already.
            await fleet.start_server()
            with trio.fail_after(100):
                await fleet.wait_registered()
        fleet.refuses = True
        with pytest.raises(ConnectionRefusedError):
            await fleet.connect()


def test_server_can_be_started_in_the_step_after_its_stop() -> None:
    async def main() -> None:
        async with open_memory_fleet("a") as fleet:
            await fleet.stop_server()
            await fleet.start_server()
            # The previous server has stopped after a few seconds.
            await trio.sleep(10)
            with trio.fail_after(100):
                await fleet.wait_registered()
            async with open_connection(fleet.url, "a", stream=await fleet.connect()) as connection:
                assert (await connection.run_task("hello")).unwrap() == {"echo": "hello"}

    # The order of tasks decides whether the stop has begun.
    for seed in range(10):
        run(main, seed=seed)


async def test_waiting_for_registrations_needs_no_clock(mock_clock: MockClock) -> None:
    waited: list[list[str]] = []
    async with open_memory_fleet() as fleet, trio.open_nursery() as nursery:

        async def wait() -> None:
            await fleet.wait_registered()
            waited.append(fleet.running)

        await fleet.stop_server()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert waited == []
        # Without a device, a server is enough.
        await fleet.start_server()
        await trio.testing.wait_all_tasks_blocked()
        assert waited == [[]]
        await fleet.start_device("a")
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert waited == [[], ["a"]]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_device_that_ends_before_it_is_registered_never_registers_and_is_not_waited_for(
    end: str, autojump_clock: MockClock
) -> None:
    async with open_memory_fleet("a") as fleet, trio.open_nursery() as nursery:
        fleet.refuses = True
        await fleet.start_device("b")
        nursery.start_soon(fleet.wait_registered)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await (fleet.stop_device("b") if end == "stop" else fleet.kill_device("b"))
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        fleet.refuses = False
        await trio.sleep(1000)
        assert fleet.server is not None
        assert fleet.server.devices == ["a"]


async def test_link_can_be_broken_before_it_is_used(autojump_clock: MockClock) -> None:
    async with open_memory_fleet("a") as fleet:
        fleet.on_link = lambda link: link.edit_replies(lambda _message: ())
        with pytest.raises(trio.TooSlowError):
            async with open_connection(
                fleet.url, "a", stream=await fleet.connect(), options=ConnectionOptions(register_timeout=5)
            ):
                raise AssertionError
