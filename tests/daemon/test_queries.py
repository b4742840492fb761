"""What the daemon tells those who run it: health, metrics, its log, and why it does not start."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.run
import galaxy_trio.daemon.web.metrics
from galaxy_trio import ConfigError
from galaxy_trio._concurrency.background import split_cancelled
from galaxy_trio.daemon.logs import logging_as
from galaxy_trio.daemon.results import encode
from galaxy_trio.daemon.run import run_daemon
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store
from galaxy_trio.daemon.web.listening import ListenError
from tests.daemon.support.daemon import open_daemon
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


async def test_health_and_readiness_are_reported_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        await daemon.wait_connected(1)
        assert await daemon.ask("GET", "/health") == {"status": "live"}
        assert await daemon.ask("GET", "/ready") == {"ready": True, "problem": None, "devices": 1, "connected": 1}

        async def fail(_store: Store) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreError("the disk fails")

        monkeypatch.setattr(Store, "counts", fail)
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the disk fails"


async def test_only_health_needs_no_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-token")
    async with open_daemon(tmp_path, "d1", settings='token_file = "tokens"') as daemon:
        await daemon.ask("GET", "/health")
        for path in ("/ready", "/metrics", "/openapi.json", "/tasks", "/devices", "/events", "/nothing"):
            await daemon.ask("GET", path, 401)


def _value(metrics: str, name: str, **labels: str) -> float:
    """One of them; the order of its labels is not known."""
    for line in metrics.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    raise AssertionError(f"there is no {name} with {labels}")


async def test_metrics_count_devices_tasks_requests_and_the_event_loop_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.metrics, "_EVERY", 0.01)
    async with open_daemon(tmp_path, "d1", "d2") as daemon:
        await daemon.wait_connected(2)
        await daemon.ended_task(await daemon.submit("echo a"))
        await daemon.ended_task(await daemon.submit("fail"))
        held = await daemon.submit("hold b")
        await daemon.wait_state(held, "running")
        await daemon.submit("echo c")
        await daemon.client.request("PROPFIND", "/tasks")
        await daemon.client.get("/nothing")
        metrics = (await daemon.client.get("/metrics")).text
        daemon.work.let_go("b")
    assert _value(metrics, "galaxy_devices", status="idle") == 1
    assert _value(metrics, "galaxy_devices", status="busy") == 1
    assert _value(metrics, "galaxy_connects_total", device="d1") == 1
    assert _value(metrics, "galaxy_device_queue", device="d1") == 1
    assert _value(metrics, "galaxy_tasks", state="queued") == 1
    assert _value(metrics, "galaxy_tasks", state="running") == 1
    assert _value(metrics, "galaxy_tasks_ended_total", state="completed") == 1
    assert _value(metrics, "galaxy_tasks_ended_total", state="failed") == 1
    assert _value(metrics, "galaxy_task_seconds_count") == 2
    assert _value(metrics, "galaxy_http_request_seconds_count", method="POST", route="list_tasks", status="202") == 4
    assert _value(metrics, "galaxy_http_request_seconds_count", method="other", route="list_tasks", status="405") == 1
    assert _value(metrics, "galaxy_http_request_seconds_count", method="GET", route="none", status="404") == 1
    assert _value(metrics, "galaxy_scheduler_lag_seconds_count") > 1
    for kind in ("late", "invalid", "duplicate", "unknown"):
        assert _value(metrics, "galaxy_messages_total", kind=kind) == 0
    assert _value(metrics, "galaxy_events_lost_total") == 0


async def test_old_tasks_are_deleted_by_number_and_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.run, "_CLEANING", 0.02)
    async with open_daemon(tmp_path, "d1", settings="keep_tasks = 2") as daemon:
        tasks = [await daemon.submit(f"echo {number}") for number in range(4)]
        for task in tasks[2:]:
            await daemon.ended_task(task)
        for task in tasks[:2]:
            while (await daemon.client.get(f"/tasks/{task}")).status_code != 404:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert await daemon.state(tasks[2]) == "completed"
    with sqlite3.connect(tmp_path / "galaxy.db") as database:
        database.execute("UPDATE tasks SET ended = ?", [(datetime.now(UTC) - timedelta(days=31)).timestamp()])
    database.close()
    async with open_daemon(tmp_path, "d1") as daemon:
        while (await daemon.ask("GET", "/tasks"))["tasks"]:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_failing_deletion_of_old_tasks_is_logged_and_tasks_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> int:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk fails")

    monkeypatch.setattr(Store, "forget", fail)
    async with open_daemon(tmp_path, "d1") as daemon:
        await until(lambda: "old tasks cannot be forgotten: the disk fails" in caplog.text)
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"


# ---- why it does not start


async def _start(directory: Path) -> Exception:
    with pytest.RaisesGroup(pytest.RaisesExc(Exception), flatten_subgroups=True, allow_unwrapped=True) as caught:
        with trio.fail_after(60):
            await run_daemon(read_settings(directory / "galaxy.toml"), trio.Event(), on_listening=lambda _: None)
    _, error = split_cancelled(caught.value)
    assert isinstance(error, Exception)
    return error


async def test_second_daemon_with_the_same_database_or_socket_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    async with open_daemon(tmp_path, "d1") as daemon:
        error = await _start(tmp_path)
        assert isinstance(error, StoreError)
        assert "another daemon uses the database" in str(error)
        settings = (tmp_path / "galaxy.toml").read_text()
        (tmp_path / "galaxy.toml").write_text(f'database = "other.db"\n{settings}')
        error = await _start(tmp_path)
        assert isinstance(error, ListenError)
        assert "another daemon listens at" in str(error)
        assert (await daemon.ended_task(await daemon.submit("echo a")))["state"] == "completed"


async def test_daemon_with_a_port_in_use_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text('{"devices": [{"device_id": "d1", "server_url": "ws://server.test/ws"}]}')
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        (tmp_path / "galaxy.toml").write_text(f'devices = "devices.json"\nlisten = "127.0.0.1:{port}"')
        error = await _start(tmp_path)
    assert isinstance(error, ConfigError)
    assert str(error) == (
        f"the daemon cannot listen at http://127.0.0.1:{port}: something else listens there: stop it, or take another port"
    )


async def test_damaged_database_is_reported_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text('{"devices": [{"device_id": "d1", "server_url": "ws://server.test/ws"}]}')
    (tmp_path / "galaxy.toml").write_text('devices = "devices.json"\nlisten = "127.0.0.1:0"')
    (tmp_path / "galaxy.db").write_bytes(b"not a database at all" * 100)
    error = await _start(tmp_path)
    assert isinstance(error, StoreError)
    assert "it is no database: name another file, or move this one away" in str(error)
    assert (tmp_path / "galaxy.db").read_bytes() == b"not a database at all" * 100


# ---- the log


def test_log_is_lines_of_text_or_json_objects(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio.daemon.test")
    with logging_as("console"):
        logger.info("something\nhappened")
        logging.getLogger("galaxy_trio._connection.link").info("too much")
    with logging_as("json"):
        try:
            raise ValueError("wrong")
        except ValueError:
            logger.exception("it was %s", "bad")
    logger.error("nobody listens")
    console, structured = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    galaxy_trio.daemon.test: something\\nhappened", console
    )
    record = json.loads(structured)
    assert (record["level"], record["logger"], record["message"]) == ("error", "galaxy_trio.daemon.test", "it was bad")
    assert "ValueError: wrong" in record["exception"]
    assert datetime.fromisoformat(record["time"]).tzinfo is not None


def test_log_level_set_by_the_caller_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with logging_as("console"):
            logging.getLogger("galaxy_trio._connection.link").debug("all of it")
    finally:
        logger.setLevel(before)
    assert "all of it" in capsys.readouterr().err


# ---- its start


async def test_starting_daemon_answers_health_and_accepts_tasks_when_the_queued_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = trio.Event()
    recover = Store.recover

    async def recover_late(store: Store) -> int:
        await looked.wait()
        return await recover(store)

    monkeypatch.setattr(Store, "recover", recover_late)
    async with open_daemon(tmp_path, "d1") as daemon, trio.open_nursery() as nursery:
        assert await daemon.ask("GET", "/health") == {"status": "live"}
        assert (await daemon.ask("GET", "/ready", 503))["problem"] == "the daemon is starting"
        tasks: list[str] = []

        async def submit() -> None:
            tasks.append(await daemon.submit("echo a"))

        nursery.start_soon(submit)
        await trio.sleep(0.02)
        assert not tasks
        looked.set()
        await until(lambda: bool(tasks))
        assert (await daemon.ended_task(tasks[0]))["state"] == "completed"


# ---- results


@pytest.mark.parametrize(
    ("result", "small"),
    [
        (None, True),
        (["a", {"b": 1.5}], True),
        ("x" * 4_000, True),
        ("x" * 5_000, False),
        ([0] * 5_000, False),
        ({str(number): None for number in range(2_000)}, False),
        ([["x" * 100] * 10] * 10, False),
    ],
)
async def test_only_large_results_are_encoded_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, result: JSON, small: bool
) -> None:
    threads: list[object] = []
    run_sync = trio.to_thread.run_sync

    async def counting(*arguments: object, **keywords: object) -> object:
        threads.append(arguments[0])
        return await run_sync(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(trio.to_thread, "run_sync", counting)
    assert json.loads(await encode(result)) == result
    assert len(threads) == (0 if small else 1)
