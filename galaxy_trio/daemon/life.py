"""A life of the daemon: everything that it has while it holds its lease, from the store to the application for HTTP.

Rule 9 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import attrs
import trio

from galaxy_trio import ConfigError, ConnectionOptions, open_constellation
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._concurrency.background import open_background, split_cancelled
from galaxy_trio._counted import counted
from galaxy_trio.daemon import systemd
from galaxy_trio.daemon.device_configs import devices_as_json, differences
from galaxy_trio.daemon.device_events import DeviceEvents
from galaxy_trio.daemon.device_watch import watch_devices
from galaxy_trio.daemon.directory import Directory
from galaxy_trio.daemon.event_feed import EventFeed
from galaxy_trio.daemon.graph_sweeps import sweep_graphs
from galaxy_trio.daemon.graphs import Graphs
from galaxy_trio.daemon.lease import LeaseLost, open_lease
from galaxy_trio.daemon.ownership import Ownership
from galaxy_trio.daemon.reports import Reports
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import PostgresqlLocation
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.daemon.task_queue import open_task_queue
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from galaxy_trio.daemon.web.metrics import Metrics
from galaxy_trio.daemon.web.routes import make_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from galaxy_trio import DeviceConfig
    from galaxy_trio.daemon.configuration import Configuration
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.store.store import Store
    from galaxy_trio.daemon.task_queue import TaskQueue
    from galaxy_trio.daemon.web.current_app import CurrentApp

logger: Final = logging.getLogger(__name__)

_DELETE_INTERVAL: Final = 60.0
"""Seconds between deletions of old tasks, and so until changed settings are applied."""
_START_TIMEOUT: Final = 10.0
"""Maximum seconds for which a reload waits for the start of a life."""
_LEASE_LOST: Final = "this daemon has lost its lease, and begins again: retry in a moment, or ask another daemon"
_NEXT_LIFE_DELAY: Final = 1.0
"""Seconds between two attempts to begin a new life."""
_KEEP_EVENTS: Final = timedelta(days=1)


class Life:
    """The lives of one daemon, one after the other.

    Args:
        configuration: The configuration; it may change.
        app: Answers requests by the application of the current life.
        connect: Opens the stream to a device's server, instead of TCP.
    """

    def __init__(
        self,
        configuration: Configuration,
        app: CurrentApp,
        connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None,
    ) -> None:
        self._configuration = configuration
        self._app = app
        self._connect = connect
        # What a reload changes, while there is a life.
        self._current: tuple[Store, TaskQueue, Ownership] | None = None
        self._has_started = trio.Event()

    async def run(self, stop: trio.Event, on_first_answer: Callable[[], None]) -> None:
        """Live until `stop` is set. When the lease is lost, a new life begins as soon as it can.

        Args:
            stop: Set by the caller.
            on_first_answer: Called as soon as requests are answered for the first time.

        Raises:
            ConfigError: The database has devices of a newer version.
            StoreError: The first life cannot begin.
        """
        await self._live_once(stop, on_first_answer)
        while not stop.is_set():
            with trio.move_on_after(_NEXT_LIFE_DELAY):
                await stop.wait()
                return
            try:
                await self._live_once(stop, lambda: logger.info("the daemon has a new lease"))
            except Exception as error:  # those of the database may be in groups
                _, problem = split_cancelled(error)
                if not isinstance(problem, StoreError):
                    raise
                self._app.reason = f"the daemon cannot begin a new life: {problem}"

    async def _live_once(self, stop: trio.Event, on_answering: Callable[[], None]) -> None:
        """Live until `stop` is set, or until the lease is lost, which is logged."""
        settings = self._configuration.settings
        async with open_store(settings.database, name=settings.name, url=settings.url) as store:
            try:
                async with open_lease(store.renew, store.lease) as lease_left:
                    await self._live(store, lease_left, stop, on_answering)
            except LeaseLost as error:
                logger.error("%s; it begins a new life", error)  # noqa: TRY400  # a sentence, without a traceback
            finally:
                self._current = None
                self._has_started = trio.Event()

    async def _live(
        self, store: Store, lease_left: Callable[[], float], stop: trio.Event, on_answering: Callable[[], None]
    ) -> None:
        configuration = self._configuration
        settings, devices = configuration.settings, configuration.devices
        async with AsyncExitStack() as stack:
            constellation = await stack.enter_async_context(
                open_constellation(
                    # Each device is added when it is owned.
                    attrs.evolve(devices, devices=()),
                    client_name=settings.database.cluster
                    if isinstance(settings.database, PostgresqlLocation)
                    else None,
                    exclusive=store.is_shared,
                    connect=self._connect,
                    options=ConnectionOptions(proxy=True),
                )
            )
            events = await stack.enter_async_context(constellation.subscribe())
            nursery = await stack.enter_async_context(open_background())
            directory = Directory(constellation, settings.name)

            def on_change(record: TaskRecord) -> None:
                metrics.count_task(record)

            task_queue = await stack.enter_async_context(
                open_task_queue(
                    store,
                    directory,
                    settings.max_queued,
                    on_change,
                    life=store.life,
                    max_running=devices.max_concurrent_tasks,
                )
            )
            ownership = Ownership(
                store,
                constellation,
                directory,
                task_queue,
                None if store.is_shared else configuration.listed_devices,
                lambda: configuration.settings.drain,
            )
            reports = Reports(nursery, task_queue, ownership, constellation)
            feed = EventFeed(store, reports.take, task_queue.load) if store.is_shared else EventFeed(store)
            event_stream = ServerSentEventStream(store, feed)
            device_events = DeviceEvents(store)
            metrics = Metrics(constellation, task_queue, event_stream, lease_left)
            nursery.start_soon(watch_devices, events, constellation, task_queue, device_events, metrics)
            nursery.start_soon(device_events.write)
            nursery.start_soon(metrics.measure_delay)
            nursery.start_soon(self._delete_old, store)
            nursery.start_soon(sweep_graphs, store)
            graphs = Graphs(store, task_queue)
            app = metrics.timed(make_app(store, directory, ownership, task_queue, graphs, event_stream, metrics))
            async with self._app.answering(app):
                on_answering()
                # After the lease, the database may be away for a while: requests get this reason from the first moment.
                self._app.reason = _LEASE_LOST
                if store.is_shared:
                    await self._seed(store)
                else:
                    await task_queue.load()
                await ownership.step()
                await nursery.start(feed.run)
                task_queue.resume()
                self._current = store, task_queue, ownership
                self._has_started.set()
                if store.lost_at_start or (task_queue.queued and not store.is_shared):
                    logger.info(
                        "an earlier daemon left %s, now lost, and %s",
                        counted(store.lost_at_start, "running task"),
                        counted(task_queue.queued, "queued task"),
                    )
                if store.is_shared:
                    nursery.start_soon(ownership.run)
                systemd.ready()
                await stop.wait()
                self._app.reason = "the daemon is stopping"
                systemd.stopping()
                running, queued = counted(task_queue.running, "task"), counted(task_queue.queued, "task")
                logger.info("stopping, with %s running and %s queued", running, queued)
                ownership.drain()
                await task_queue.drain(configuration.settings.drain)
                try:
                    await ownership.release_all()
                except StoreError as error:
                    logger.warning("other daemons take the devices when the lease has ended: %s", error)
                await feed.close()

    async def _seed(self, store: Store) -> None:
        """Store the devices of the file if the database has none; report how they differ otherwise."""
        listed = devices_as_json(self._configuration.devices.devices)
        different = differences(listed, await store.seed_devices(listed))
        if different is not None:
            logger.warning(
                "the devices in the database are used, and those in the file differ (%s): SIGHUP replaces them by the file",
                different,
            )

    async def _delete_old(self, store: Store) -> NoReturn:
        """Delete old tasks and events at the start and periodically, the tasks according to the current settings."""
        while True:
            settings = self._configuration.settings
            try:
                oldest = wall_clock.now() - timedelta(days=settings.keep_days)
                deleted = await store.delete_old(oldest, settings.keep_tasks)
                await store.delete_old_events(wall_clock.now() - _KEEP_EVENTS)
            except StoreError as error:
                logger.warning("old tasks and events cannot be deleted: %s", error)
            else:
                if deleted:
                    logger.info("deleted %s", counted(deleted, "old task"))
            await trio.sleep(_DELETE_INTERVAL)

    async def reload_at_signals(self, signals: AsyncIterator[int]) -> None:
        """Reload the configuration at each signal."""
        async for _ in signals:
            systemd.reloading()
            try:
                changes = await self._reload()
            except (ConfigError, StoreError) as error:
                logger.error("the configuration was not reloaded, and nothing has changed: %s", error)  # noqa: TRY400  # a sentence, without a traceback
            else:
                logger.info("the configuration was reloaded: %s", changes)
            systemd.ready()

    async def _reload(self) -> str:
        """Reload the configuration. Returns the changes of the devices in words."""
        await self._configuration.reload()
        with trio.move_on_after(_START_TIMEOUT):
            await self._has_started.wait()
        if self._current is None:
            return "the devices are those in the database until the next reload"
        store, task_queue, ownership = self._current
        task_queue.max_queued = self._configuration.settings.max_queued
        if not store.is_shared:
            ownership.configs = self._configuration.listed_devices
            return str(await ownership.step())
        listed = devices_as_json(self._configuration.devices.devices)
        before = await store.replace_devices(listed)
        ownership.wake()
        return differences(listed, before) or "no device has changed"
