"""A daemon's task queue without HTTP, with devices in memory and a real database."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio import Constellation, open_constellation
from galaxy_trio.daemon.device_events import DeviceEvents
from galaxy_trio.daemon.device_watch import watch_devices
from galaxy_trio.daemon.directory import Directory
from galaxy_trio.daemon.event_feed import EventFeed
from galaxy_trio.daemon.store.lives import begin_life
from galaxy_trio.daemon.store.records import TaskRecord, TaskRequest
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.daemon.task_queue import TaskQueue, open_task_queue
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from galaxy_trio.daemon.web.metrics import Metrics
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.testing.memory_fleet import MemoryFleet


@attrs.frozen
class Life:
    """A daemon without HTTP. Made by `open_life`."""

    store: Store
    task_queue: TaskQueue
    constellation: Constellation
    changes: list[TaskRecord]


@asynccontextmanager
async def open_life(location: Location, fleet: MemoryFleet, max_running: int | None = None) -> AsyncGenerator[Life]:
    """Run a store, a constellation and a task queue inside the block; they end with it, without a drain."""
    async with open_store(location) as store, open_life_on(store, fleet, max_running=max_running) as life:
        yield life


@asynccontextmanager
async def open_life_on(
    store: Store,
    fleet: MemoryFleet,
    on_change: Callable[[TaskRecord], None] = lambda _: None,
    *,
    name: str = "",
    max_running: int | None = None,
) -> AsyncGenerator[Life]:
    """Run a constellation and a task queue inside the block, on a store that others may use as well."""
    changes: list[TaskRecord] = []

    def change(record: TaskRecord) -> None:
        changes.append(record)
        on_change(record)

    life = name or store.life
    if name:
        await store.write(partial(begin_life, life=life, name=name, url=None, lease=math.inf))
    names = [config.device_id for config in fleet.configs]
    epochs = await store.take_devices(life, names, len(names))
    async with (
        open_constellation(fleet.configs, connect=fleet.connect, reconnect_delay=0.01) as constellation,
        constellation.subscribe() as events,
        trio.open_nursery() as nursery,
        open_task_queue(
            store,
            directory := Directory(constellation, "daemon"),
            10_000,
            change,
            life=life,
            max_running=max_running,
        ) as task_queue,
    ):
        directory.epochs = epochs
        nursery.start_soon(
            watch_devices,
            events,
            constellation,
            task_queue,
            DeviceEvents(store),
            Metrics(constellation, task_queue, ServerSentEventStream(store, EventFeed(store))),
        )
        await task_queue.load()
        task_queue.resume()
        yield Life(store, task_queue, constellation, changes)
        nursery.cancel_scope.cancel()


async def ended_tasks(life: Life, *tasks: TaskRecord) -> list[TaskRecord]:
    """Wait for the end of tasks."""
    return [await life.task_queue.wait(task.id, SECONDS) for task in tasks]


async def submit(life: Life, request: str, device: str | None = None) -> TaskRecord:
    """Submit a task."""
    record, is_new = await life.task_queue.submit(TaskRequest(request, device))
    assert is_new
    return record
