"""Events of devices: written together, in order, and bounded while the database is away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio.daemon import device_events
from galaxy_trio.daemon.device_events import DeviceEvents
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store, open_store
from tests.daemon.support.events import read_all
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from galaxy_trio.daemon.store.events import StoredEvent
    from galaxy_trio.daemon.store.location import Location

pytestmark = pytest.mark.daemon


async def _wait_newest(store: Store, kind: str, number: int) -> list[StoredEvent]:
    """Wait until the newest event on disk is this one. Returns all events."""
    with trio.fail_after(SECONDS):
        while True:
            events = await read_all(store)
            if events and (events[-1].kind, json.loads(events[-1].data)) == (kind, {"number": number}):
                return events
            await trio.sleep(0.005)


async def test_many_events_share_few_transactions_and_keep_their_order(database: Location) -> None:
    async with open_store(database) as store, trio.open_nursery() as nursery:
        published = DeviceEvents(store)
        nursery.start_soon(published.write)
        commits = store.commits
        for number in range(1_000):
            published.publish("status", {"number": number})
        events = await _wait_newest(store, "status", 999)
        assert store.commits - commits == 4
        assert [json.loads(event.data)["number"] for event in events] == list(range(1_000))
        published.publish("device", {"number": 1_000})
        await _wait_newest(store, "device", 1_000)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("count", "is_reset"), [(500, False), (2_500, True)])
async def test_events_wait_for_a_database_that_fails_and_too_many_become_a_reset(
    count: int, is_reset: bool, database: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_events, "_RETRY_DELAY", 0.001)
    failures, failed, go_on = 0, trio.Event(), trio.Event()
    report = Store.report

    async def fail(
        store: Store, life: str, states: Mapping[str, str], events: Sequence[tuple[str, Mapping[str, object]]]
    ) -> None:
        if go_on.is_set():
            await report(store, life, states, events)
            return
        nonlocal failures
        await trio.lowlevel.checkpoint()
        failures += 1
        if failures == 2:
            failed.set()
        raise StoreError("the disk fails")

    monkeypatch.setattr(Store, "report", fail)
    async with open_store(database) as store, trio.open_nursery() as nursery:
        published = DeviceEvents(store)
        nursery.start_soon(published.write)
        published.publish("status", {"number": 0})
        await failed.wait()
        for number in range(1, count):
            published.publish("status", {"number": number})
        go_on.set()
        events = await _wait_newest(store, "status", count - 1)
        nursery.cancel_scope.cancel()
    assert [event.kind for event in events[:2]] == ["status", "reset" if is_reset else "status"]
    # Twice, 1,000 of them were replaced.
    assert len(events) == 500
    assert [record.getMessage() for record in caplog.records] == [
        "events of devices cannot be written: the disk fails; retrying"
    ]
