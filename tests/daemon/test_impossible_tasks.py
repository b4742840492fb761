"""Tasks whose requirements no device can ever meet are refused, if that is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.support.command_line import call_process, is_one_sentence
from tests.daemon.support.daemon import RunningDaemon, open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("each_database")]

NEVER_RUNNING = "d9"


async def _wait_known(daemon: RunningDaemon) -> None:
    """Wait until the information of d1 has arrived, which its configuration does not contain."""
    while (await daemon.ask("GET", "/devices/d1"))["os"] is None:  # noqa: ASYNC110
        await trio.sleep(0.005)


async def _configure(daemon: RunningDaemon, *names: str, **more: JSON) -> None:
    """Reload the configuration with these devices, and wait until it has them."""
    daemon.devices(*names, **more)
    await daemon.reload()
    while {device["device_id"] for device in (await daemon.ask("GET", "/devices"))["devices"]} != set(names):  # noqa: ASYNC110
        await trio.sleep(0.005)
    # While devices are replaced, it is not certain that none fits.
    await daemon.wait_connected(1)


async def _refusal(daemon: RunningDaemon, **wants: JSON) -> str:
    answer = await daemon.ask("POST", "/tasks", 422, json={"request": "echo", **wants})
    return str(answer["error"])


async def test_task_that_no_device_can_ever_run_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        assert "none runs 'windows'; there are: 'linux'" in await _refusal(daemon, os="windows")
        assert "none has 'gpu'" in await _refusal(daemon, capabilities=["gpu"])
        assert "none that runs 'linux' has 'gpu'" in await _refusal(daemon, os="linux", capabilities=["gpu"])
        assert (await daemon.ask("GET", "/tasks"))["tasks"] == []


async def test_task_is_accepted_while_a_device_may_still_turn_out_to_fit(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        await _configure(daemon, "d1", NEVER_RUNNING)
        wanted: list[dict[str, JSON]] = [{"os": "windows"}, {"capabilities": ["gpu"]}]
        for wants in wanted:
            task_id = await daemon.submit("echo", None, **wants)
            assert await daemon.state(task_id) == "queued"


async def test_configuration_of_a_device_that_never_registered_contradicts_an_operating_system(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        await _configure(daemon, "d1", NEVER_RUNNING, os="linux")
        assert "none runs 'windows'; there are: 'linux'" in await _refusal(daemon, os="windows")
        # Its capabilities are not complete before it registers.
        assert await daemon.state(await daemon.submit("echo", None, capabilities=["gpu"])) == "queued"


async def test_task_that_was_accepted_before_is_returned_for_its_key_although_it_can_never_run(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        await _configure(daemon, "d1", NEVER_RUNNING)
        body: JSON = {"request": "echo", "os": "windows", "idempotency_key": "k"}
        accepted = await daemon.ask("POST", "/tasks", 202, json=body)
        await _configure(daemon, "d1")
        assert (await daemon.ended_task(accepted["id"]))["state"] == "failed"
        assert (await daemon.ask("POST", "/tasks", 200, json=body))["id"] == accepted["id"]
        answer = await daemon.ask("POST", f"/tasks/{accepted['id']}/retry", 422)
        assert "none runs 'windows'" in answer["error"]


async def test_retry_is_refused_if_the_device_was_removed_and_of_a_task_that_has_not_ended(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        task_id = await daemon.submit("echo", "d2")
        await daemon.ended_task(task_id)
        queued = await daemon.submit("hold x", "d1")
        await _configure(daemon, "d1")
        assert (await daemon.ask("POST", f"/tasks/{task_id}/retry", 404))["error"].startswith("there is no device 'd2'")
        answer = await daemon.ask("POST", f"/tasks/{queued}/retry", 409)
        assert "only a task that has ended can be retried" in answer["error"]


async def test_task_submit_exits_with_2_and_prints_what_is_missing(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        outcome = await call_process("task", "submit", "echo", "--os", "windows", "--url", daemon.url)
    assert (outcome.status, outcome.out) == (2, "")
    assert is_one_sentence(outcome)
    assert "none runs 'windows'; there are: 'linux'" in outcome.err


async def test_task_for_a_device_that_was_given_up_is_accepted_because_it_may_be_reconnected(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await _wait_known(daemon)
        await _configure(daemon, "d1", NEVER_RUNNING, max_retries=0)
        while (await daemon.ask("GET", f"/devices/{NEVER_RUNNING}"))["status"] != "failed":  # noqa: ASYNC110
            await trio.sleep(0.005)
        task = await daemon.ended_task(await daemon.submit("echo", None, os="windows"))
    assert task["state"] == "failed"
    assert "would fit, but was given up" in task["error"]
