"""All of the daemon together: what it keeps, what it is connected to, and who may ask it."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import ConfigError, open_constellation
from galaxy_trio.daemon import notify
from galaxy_trio.daemon.app import Api
from galaxy_trio.daemon.bodies import task_as_json
from galaxy_trio.daemon.dispatcher import Dispatcher, open_dispatcher
from galaxy_trio.daemon.feed import Feed
from galaxy_trio.daemon.listening import open_listeners, parse_address
from galaxy_trio.daemon.metrics import Metrics
from galaxy_trio.daemon.page import PAGE_PATHS
from galaxy_trio.daemon.reload import apply_devices
from galaxy_trio.daemon.schema import StoreError
from galaxy_trio.daemon.security import Security
from galaxy_trio.daemon.serving import serve_http
from galaxy_trio.daemon.settings import Settings, read_settings
from galaxy_trio.daemon.store import Store, open_store
from galaxy_trio.daemon.watch import watch_devices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from galaxy_trio import Constellation, DeviceConfig
    from galaxy_trio.daemon.listening import Address
    from galaxy_trio.daemon.records import TaskRecord

logger: Final = logging.getLogger(__name__)

_CLEANING: Final = 3600.0
"""Seconds between two times at which old tasks are forgotten."""


async def run_daemon(
    settings: Settings,
    stop: trio.Event,
    *,
    on_listening: Callable[[Address], None],
    connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None = None,
) -> None:
    """Run the daemon until it is to stop. SIGHUP reads its configuration anew.

    Nothing more is begun when it is to stop, what runs may go on for as long as the configuration says, and what waits is there for the
    next one. Cancelling stops what runs, which is `lost` then.

    Args:
        settings: What ``galaxy.toml`` says.
        stop: Set from outside.
        on_listening: Called with the address as soon as requests are answered. Tasks are accepted when the database was looked at.
        connect: Opens the stream to a device's server, in place of TCP.

    Raises:
        ConfigError: The configuration does not do.
        StoreError: The database does not do, or another daemon uses it.
        ListenError: It cannot listen where it should.
    """
    devices = await trio.to_thread.run_sync(settings.read_devices)
    tokens = await trio.to_thread.run_sync(settings.read_tokens)
    feed = Feed()
    async with AsyncExitStack() as stack:
        # Without a receiver the signal would end the process.
        reloads = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP))
        # What is opened first is closed last: nobody writes to what has gone, or asks for it.
        store = await stack.enter_async_context(open_store(settings.database))
        address, listeners = await stack.enter_async_context(
            open_listeners(parse_address(settings.listen), has_token=bool(tokens))
        )
        constellation = await stack.enter_async_context(open_constellation(devices, connect=connect))
        daemon = _Daemon(settings, tokens, store, constellation, feed)
        events = await stack.enter_async_context(constellation.subscribe())
        nursery = await stack.enter_async_context(trio.open_nursery())
        dispatcher = await stack.enter_async_context(
            open_dispatcher(
                store,
                constellation,
                settings.max_queued,
                daemon.on_change,
                max_running=devices.max_concurrent_tasks,
            )
        )
        metrics = daemon.metrics = Metrics(constellation, dispatcher, feed)
        nursery.start_soon(watch_devices, events, constellation, dispatcher, feed, metrics)
        nursery.start_soon(metrics.watch_scheduler)
        nursery.start_soon(daemon.forget_old_tasks)
        nursery.start_soon(daemon.reload_when_told, reloads, dispatcher)
        nursery.start_soon(notify.feed_watchdog)
        app = Security(
            metrics.timed(Api(store, constellation, dispatcher, feed, metrics).make_app()),
            tokens=lambda: daemon.tokens,
            hosts=lambda: daemon.settings.allowed_hosts,
            open_paths=("/health", *PAGE_PATHS),
        )
        async with serve_http(app, listeners):
            on_listening(address)
            logger.info("listening at %s", address)
            await dispatcher.resume()
            notify.ready()
            await stop.wait()
            notify.stopping()
            logger.info("stopping: %s tasks run, %s wait", dispatcher.running, dispatcher.queued)
            await dispatcher.drain(settings.drain)
            feed.close()
        nursery.cancel_scope.cancel()


class _Daemon:
    """What may be another after a reload, and who is told what."""

    metrics: Metrics

    def __init__(
        self, settings: Settings, tokens: tuple[str, ...], store: Store, constellation: Constellation, feed: Feed
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        self._store = store
        self._constellation = constellation
        self._feed = feed

    def on_change(self, record: TaskRecord) -> None:
        """A task is in another state, on disk."""
        self._feed.publish("task", partial(task_as_json, record))
        self.metrics.count_task(record)

    async def forget_old_tasks(self) -> None:
        """Keep to what is to be kept, for ever."""
        while True:
            try:
                oldest = datetime.now(UTC) - timedelta(days=self.settings.keep_days)
                forgotten = await self._store.forget(oldest, self.settings.keep_tasks)
            except StoreError as error:
                logger.warning("old tasks cannot be forgotten: %s", error)
            else:
                if forgotten:
                    logger.info("%s old tasks were forgotten", forgotten)
            await trio.sleep(_CLEANING)

    async def reload_when_told(self, signals: AsyncIterator[int], dispatcher: Dispatcher) -> None:
        """Read the configuration anew at each signal, for ever."""
        async for _ in signals:
            notify.reloading()
            try:
                await self._reload(dispatcher)
            except ConfigError as error:
                logger.error("nothing was changed: %s", error)  # noqa: TRY400  # the sentence says it all
            notify.ready()

    async def _reload(self, dispatcher: Dispatcher) -> None:
        settings = await trio.to_thread.run_sync(read_settings, self.settings.path)
        devices = await trio.to_thread.run_sync(settings.read_devices)
        tokens = await trio.to_thread.run_sync(settings.read_tokens)
        if self.tokens and not tokens:
            raise ConfigError("there is no token any more: the daemon has to be started anew to be without")
        for name in ("listen", "database"):
            if getattr(settings, name) != getattr(self.settings, name):
                logger.warning("%s is another now: that takes a new start of the daemon", name)
        self.settings = settings
        self.tokens = tokens
        dispatcher.max_queued = settings.max_queued
        with dispatcher.reconfiguring():
            changes = await apply_devices(self._constellation, devices.devices, settings.drain)
        logger.info("the configuration was read: %s", changes)
