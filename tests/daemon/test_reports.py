"""What a daemon does with each kind of event of another daemon, and with one that it does not understand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import Mock

import pytest
import trio

from galaxy_trio import open_constellation
from galaxy_trio.daemon.reports import Reports
from galaxy_trio.daemon.store.records import Requirement
from galaxy_trio.daemon.store.short_task import short_task
from galaxy_trio.testing.memory_fleet import open_memory_fleet
from tests.daemon.support.scheduling import make_record
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.daemon

RECORD: Final = make_record(1, Requirement("d1"))


def _reports(**more: object) -> tuple[Reports, Mock, Mock]:
    """Reports with a task queue and an ownership that note what they are asked for."""
    task_queue, ownership = Mock(), Mock()
    parts: dict[str, Any] = {"nursery": Mock(), "constellation": SimpleNamespace(devices={}), **more}
    return Reports(parts["nursery"], task_queue, ownership, parts["constellation"]), task_queue, ownership


def test_change_of_a_task_and_a_claim_that_was_given_back_reach_the_task_queue() -> None:
    reports, task_queue, ownership = _reports()
    reports.take("task", short_task(RECORD))
    reports.take("free", short_task(RECORD))
    assert [(name, arguments[0].id) for name, arguments, _ in task_queue.mock_calls] == [
        ("report", RECORD.id),
        ("report_free", RECORD.id),
    ]
    assert not ownership.mock_calls


def test_change_of_a_device_is_read_and_one_of_the_cluster_may_have_freed_tasks() -> None:
    reports, task_queue, ownership = _reports()
    reports.take("device", {"device_id": "d1"})
    assert (len(ownership.wake.mock_calls), task_queue.mock_calls) == (1, [])
    reports.take("cluster", {})
    assert (len(ownership.wake.mock_calls), len(task_queue.look_for_free.mock_calls)) == (2, 1)


def test_request_to_cancel_a_task_is_carried_out_here() -> None:
    nursery = Mock()
    reports, task_queue, _ = _reports(nursery=nursery)
    reports.take("cancel", {"id": "t1"})
    nursery.start_soon.assert_called_once_with(task_queue.cancel_here, "t1")


@pytest.mark.parametrize(("kind", "data"), [("task", {}), ("task", {"wants": 5}), ("cancel", {}), ("reconnect", {})])
def test_event_that_is_not_understood_is_reported_and_left_out(
    kind: str, data: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    reports, task_queue, ownership = _reports()
    reports.take(kind, data)
    assert f"an event {kind!r} of another daemon is not understood" in caplog.text
    assert not task_queue.mock_calls
    assert not ownership.mock_calls


def test_event_of_an_unknown_kind_or_for_another_daemon_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    reports, task_queue, ownership = _reports()
    for kind, data in (("status", {"device_id": "d1"}), ("new", {}), ("reconnect", {"device_id": "elsewhere"})):
        reports.take(kind, data)
    assert not caplog.text
    assert not task_queue.mock_calls
    assert not ownership.mock_calls


async def test_device_of_this_daemon_is_reconnected_and_one_that_has_just_left_ends_nothing() -> None:
    with trio.fail_after(SECONDS):
        async with open_memory_fleet("d1") as fleet, open_constellation(fleet.configs, connect=fleet.connect) as here:
            await here.wait_connected()
            async with trio.open_nursery() as nursery:
                reports, _, _ = _reports(nursery=nursery, constellation=here)
                reports.take("reconnect", {"device_id": "d1"})
            assert here.devices["d1"].statistics().connects == 2
            async with trio.open_nursery() as nursery:
                reports, _, _ = _reports(nursery=nursery, constellation=here)
                reports.take("reconnect", {"device_id": "d1"})
                await here.remove_device("d1", wait=False)
            assert cast("object", here.devices) == {}
