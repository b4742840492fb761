"""The daemon's metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import galaxy_trio.daemon.web.metrics
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.daemon


def _value(metrics: str, name: str, **labels: str) -> float:
    """The value of a metric, whatever the order of its labels."""
    for line in metrics.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    raise AssertionError(f"there is no {name} with {labels}")


async def test_metrics_count_devices_tasks_requests_and_the_event_loop_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.web.metrics, "_LAG_INTERVAL", 0.01)
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
        daemon.work.release("b")
    assert _value(metrics, "galaxy_devices", status="idle") == 1
    assert _value(metrics, "galaxy_devices", status="busy") == 1
    assert _value(metrics, "galaxy_connects_total", device="d1") == 1
    assert _value(metrics, "galaxy_device_queue", device="d1") == 1
    assert _value(metrics, "galaxy_tasks", state="queued") == 1
    assert _value(metrics, "galaxy_tasks", state="running") == 1
    assert _value(metrics, "galaxy_tasks_ended_total", state="completed") == 1
    assert _value(metrics, "galaxy_tasks_ended_total", state="failed") == 1
    assert _value(metrics, "galaxy_task_seconds_count") == 2
    assert _value(metrics, "galaxy_http_request_seconds_count", method="POST", route="/tasks", status="202") == 4
    assert _value(metrics, "galaxy_http_request_seconds_count", method="other", route="/tasks", status="405") == 1
    assert _value(metrics, "galaxy_http_request_seconds_count", method="GET", route="none", status="404") == 1
    assert _value(metrics, "galaxy_scheduler_lag_seconds_count") > 1
    for kind in ("late", "invalid", "duplicate", "unknown"):
        assert _value(metrics, "galaxy_messages_total", kind=kind) == 0
    assert _value(metrics, "galaxy_events_lost_total") == 0
