"""Daemons that share a PostgreSQL database, over HTTP: who owns which device, which devices there are, and how one drains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from galaxy_trio import ConfigError
from galaxy_trio.daemon.check import check_start
from galaxy_trio.daemon.run import run_daemon
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store, open_store
from tests.constellation.support.fleet import Work
from tests.daemon.support.small_cluster import member_settings, open_member, owners, wait_owners
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.daemon.store.location import PostgresqlLocation
    from tests.daemon.support.daemon import RunningDaemon
    from tests.daemon.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.daemon


async def _cluster(daemon: RunningDaemon) -> dict[str, dict[str, Any]]:
    found = await daemon.ask("GET", "/cluster")
    return {entry["name"]: entry for entry in found["daemons"]}


async def test_each_daemon_owns_its_share_and_any_shows_all(tmp_path: Path, location: PostgresqlLocation) -> None:
    async with open_member(tmp_path, location, "desk-1", "d1", "d2") as first:
        await wait_owners(first, "desk-1", "desk-1")
        async with open_member(tmp_path, location, "desk-2", "d1", "d2") as second:
            for daemon in (first, second):
                await wait_owners(daemon, "desk-1", "desk-2")
            found = await first.ask("GET", "/cluster")
            assert (found["devices"], found["unowned"]) == (2, 0)
            daemons = await _cluster(first)
            assert [daemons[name]["devices"] for name in ("desk-1", "desk-2")] == [1, 1]
            assert [daemons[name]["answers"] for name in ("desk-1", "desk-2")] == [True, False]
            assert [daemons[name]["died"] for name in ("desk-1", "desk-2")] == [None, None]
            assert daemons["desk-2"]["url"] == "http://desk-2.example.org:8765"
            assert all(entry["started"] <= found["now"] < entry["expires"] for entry in daemons.values())
            assert (await _cluster(second))["desk-2"]["answers"]
        await wait_owners(first, "desk-1", "desk-1")
        gone = (await _cluster(first))["desk-2"]
        assert (gone["devices"], gone["answers"]) == (0, False)
        assert gone["died"] is not None


async def test_task_runs_at_the_daemon_that_owns_its_device_whichever_accepts_it(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    work = Work()
    async with (
        open_member(tmp_path, location, "desk-1", "d1", "d2", work=work) as first,
        open_member(tmp_path, location, "desk-2", "d1", "d2", work=work) as second,
    ):
        await wait_owners(first, "desk-1", "desk-2")
        await first.wait_connected(2)
        tasks = [await first.submit(f"echo {device}", device) for device in ("d1", "d2")]
        for daemon in (first, second):
            assert [(await daemon.ended_task(task))["state"] for task in tasks] == ["completed"] * 2
        [other] = [device for device, owner in (await owners(first)).items() if owner == "desk-2"]
        held = await first.submit("wait", other)
        await first.wait_state(held, "running")
        assert (await _cluster(first))["desk-2"]["running"] == 1
        await first.ask("DELETE", f"/tasks/{held}")
        assert (await second.ended_task(held))["state"] == "cancelled"
    assert sorted(work.begun) == ["echo d1", "echo d2", "wait"]


async def test_device_of_another_daemon_is_reconnected_by_its_owner(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    async with (
        open_member(tmp_path, location, "desk-1", "d1", "d2") as first,
        open_member(tmp_path, location, "desk-2", "d1", "d2"),
    ):
        await wait_owners(first, "desk-1", "desk-2")
        await first.wait_connected(2)
        [other] = [device for device, owner in (await owners(first)).items() if owner == "desk-2"]
        before = await first.ask("GET", f"/devices/{other}")
        after = await first.ask("POST", f"/devices/{other}/reconnect")
        assert (after["status"], after["owner"]) == ("idle", "desk-2")
        assert after["connects"] == before["connects"] + 1


async def test_drained_daemon_gives_its_devices_to_the_others_and_answers(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    async with (
        open_member(tmp_path, location, "desk-1", "d1", "d2") as first,
        open_member(tmp_path, location, "desk-2", "d1", "d2") as second,
    ):
        await wait_owners(first, "desk-1", "desk-2")
        refusal = await first.ask("POST", "/cluster/desk-3/drain", 404)
        assert refusal == {"error": "there is no daemon 'desk-3'; did you mean 'desk-2' or 'desk-1'?"}
        drained = await first.ask("POST", "/cluster/desk-2/drain", 202)
        assert [entry["name"] for entry in drained["daemons"]] == ["desk-2", "desk-1"]
        await wait_owners(second, "desk-1", "desk-1")
        await first.wait_connected(2)
        assert [entry["draining"] for entry in (await _cluster(second)).values()] == [True, False]
        # If no daemon is left that does not drain, they own the devices as before.
        await first.ask("POST", "/cluster/desk-1/drain", 202)
        await wait_owners(second, "desk-1", "desk-2")
        assert (await second.ended_task(await second.submit("echo a")))["state"] == "completed"


async def test_killed_daemon_is_replaced_and_its_running_task_is_lost(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    work = Work()
    async with open_member(tmp_path, location, "desk-1", "d1", "d2", work=work) as first:
        async with open_member(tmp_path, location, "desk-2", "d1", "d2", work=work) as second:
            await wait_owners(first, "desk-1", "desk-2")
            await first.wait_connected(2)
            [other] = [device for device, owner in (await owners(first)).items() if owner == "desk-2"]
            held, queued = await first.submit("wait", other), await first.submit("echo b", other)
            await first.wait_state(held, "running")
            await second.kill()
        assert (await first.ended_task(held))["state"] == "lost"
        assert (await first.ended_task(queued))["state"] == "completed"
        assert await owners(first) == {"d1": "desk-1", "d2": "desk-1"}


async def test_daemon_that_lost_its_lease_stops_its_tasks_and_goes_on_with_a_new_life(
    tmp_path: Path,
    location: PostgresqlLocation,
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin_life = Store.begin_life
    looked = trio.Event()

    async def begin_late(store: Store, *arguments: Any) -> None:  # Any: those of the store's method
        if not looked.is_set():
            raise StoreError("the database is away")
        await begin_life(store, *arguments)

    async with open_member(tmp_path, location, "desk-1", "d1") as daemon:
        await daemon.wait_connected(1)
        held = await daemon.submit("wait")
        await daemon.wait_state(held, "running")
        postgresql.execute(f"UPDATE {location.cluster}.daemons SET expires = 0")  # noqa: S608  # a name of this test
        async with open_store(location) as other:
            assert other.lost_at_start == 1
        monkeypatch.setattr(Store, "begin_life", begin_late)
        await until(lambda: "it begins a new life" in caplog.text)
        while "the daemon cannot begin a new life: the database is away" not in await _refusal(daemon):  # noqa: ASYNC110
            await trio.sleep(0.02)
        await daemon.ask("GET", "/health")
        assert daemon.work.cancelled == ["wait"]
        looked.set()
        while await _refusal(daemon):  # noqa: ASYNC110
            await trio.sleep(0.02)
        assert (await daemon.ended_task(held))["state"] == "lost"
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"
        lives = (await daemon.ask("GET", "/cluster"))["daemons"]
        assert [life["died"] is None for life in lives if life["name"] == "desk-1"] == [True, False]


async def _refusal(daemon: RunningDaemon) -> str:
    """The error with which requests are refused, if they are."""
    response = await daemon.client.get("/tasks")
    return "" if response.status_code == 200 else str(response.json()["error"])


async def test_devices_in_the_database_are_used_until_a_reload_replaces_them_by_the_file(
    tmp_path: Path, location: PostgresqlLocation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "galaxy_trio.daemon")
    async with open_member(tmp_path, location, "desk-1", "d1", "d2"):
        pass
    assert "differ" not in caplog.text
    async with open_member(tmp_path, location, "desk-2", "d2", "d3") as daemon:
        assert await owners(daemon) == {"d1": "desk-2", "d2": "desk-2"}
        warnings = [record.getMessage() for record in caplog.records if "differ" in record.getMessage()]
        assert warnings == [
            (
                "the devices in the database are used, and those in the file differ "
                "(only in the file: d3, only in the database: d1): SIGHUP replaces them by the file"
            )
        ]
        await daemon.reload()
        await until(
            lambda: "the configuration was reloaded: only in the file: d3, only in the database: d1" in caplog.text
        )
        while await owners(daemon) != {"d2": "desk-2", "d3": "desk-2"}:  # noqa: ASYNC110
            await trio.sleep(0.02)
        await daemon.reload()
        await until(lambda: "the configuration was reloaded: no device has changed" in caplog.text)


async def test_token_of_a_device_is_refused_because_it_would_be_stored(
    tmp_path: Path, location: PostgresqlLocation
) -> None:
    token = "a-token-of-the-device"
    device = f'[[devices]]\ndevice_id = "d1"\nserver_url = "ws://server.test/ws"\ntoken = "{token}"\n'
    (tmp_path / "devices.toml").write_text(device)
    (tmp_path / "galaxy.toml").write_text(f'listen = "127.0.0.1:0"\n{member_settings(location, "desk-1")}')
    settings = read_settings(tmp_path / "galaxy.toml")
    with pytest.raises(ConfigError) as started:
        await run_daemon(settings, trio.Event(), on_listening=lambda _: None)
    with pytest.raises(ConfigError) as checked:
        await check_start(settings)
    problem = "device 'd1': token: a database for several daemons does not store it: use token_file or token_env"
    assert str(started.value).startswith(problem)
    assert [text.startswith(f"database: {problem}") for text in checked.value.problems] == [True]
    assert token not in f"{started.value} {checked.value}"
    (tmp_path / "devices.toml").write_text(device.replace("token =", "token_env ="))
    assert (await check_start(settings)).running is None
