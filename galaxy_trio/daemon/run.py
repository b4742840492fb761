"""The daemon: its store, constellation, dispatcher and HTTP server, opened and closed in order."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import ConfigError, open_constellation
from galaxy_trio.daemon import systemd
from galaxy_trio.daemon.device_watch import watch_devices
from galaxy_trio.daemon.reload import apply_devices
from galaxy_trio.daemon.settings import Settings, read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.daemon.task_queue import Dispatcher, open_dispatcher
from galaxy_trio.daemon.web.bodies import task_as_json
from galaxy_trio.daemon.web.event_stream import Feed
from galaxy_trio.daemon.web.listening import open_listeners, parse_address
from galaxy_trio.daemon.web.metrics import Metrics
from galaxy_trio.daemon.web.page import PAGE_PATHS
from galaxy_trio.daemon.web.routes import Api
from galaxy_trio.daemon.web.security import Security
from galaxy_trio.daemon.web.serving import serve_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from galaxy_trio import Constellation, DeviceConfig
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.web.listening import Address

logger: Final = logging.getLogger(__name__)

_CLEANING: Final = 3600.0
"""Seconds between two deletions of old tasks."""


async def run_daemon(
    settings: Settings,
    stop: trio.Event,
    *,
    on_listening: Callable[[Address], None],
    connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None = None,
) -> None:
    """Run the daemon until `stop` is set. SIGHUP reloads its configuration.

    When `stop` is set, no task begins any more, running tasks may go on for as long as the configuration allows, and waiting tasks stay on
    disk for the next daemon. Cancelling stops the running tasks, which become `lost`.

    Args:
        settings: The settings in ``galaxy.toml``.
        stop: Set by the caller to stop the daemon.
        on_listening: Called with the address as soon as requests are answered. Tasks are accepted after the waiting ones are counted.
        connect: Opens the stream to a device's server, in place of TCP.

    Raises:
        ConfigError: The configuration is invalid.
        StoreError: The database cannot be used, or another daemon uses it.
        ListenError: The address cannot be listened on.
    """
    devices = await trio.to_thread.run_sync(settings.read_devices)
    tokens = await trio.to_thread.run_sync(settings.read_tokens)
    feed = Feed()
    async with AsyncExitStack() as stack:
        # Without a receiver the signal would end the process.
        reloads = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP))
        # Closed in reverse order, so that each part outlives its users.
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
        nursery.start_soon(daemon.reload_at_signals, reloads, dispatcher)
        nursery.start_soon(systemd.feed_watchdog)
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
            systemd.ready()
            await stop.wait()
            systemd.stopping()
            logger.info("stopping: %s tasks run, %s wait", dispatcher.running, dispatcher.queued)
            await dispatcher.drain(settings.drain)
            feed.close()
        nursery.cancel_scope.cancel()


class _Daemon:
    """The parts that a reload changes, and the subscribers to changes of tasks."""

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
        """Publish and count a task whose state has changed on disk."""
        self._feed.publish("task", partial(task_as_json, record))
        self.metrics.count_task(record)

    async def forget_old_tasks(self) -> None:
        """Delete old tasks periodically, as the settings say."""
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

    async def reload_at_signals(self, signals: AsyncIterator[int], dispatcher: Dispatcher) -> None:
        """Reload the configuration at each signal."""
        async for _ in signals:
            systemd.reloading()
            try:
                await self._reload(dispatcher)
            except ConfigError as error:
                logger.error("nothing was changed: %s", error)  # noqa: TRY400  # the message says it all
            systemd.ready()

    async def _reload(self, dispatcher: Dispatcher) -> None:
        settings = await trio.to_thread.run_sync(read_settings, self.settings.path)
        devices = await trio.to_thread.run_sync(settings.read_devices)
        tokens = await trio.to_thread.run_sync(settings.read_tokens)
        if self.tokens and not tokens:
            raise ConfigError("there is no token any more: restart the daemon to run without one")
        for name in ("listen", "database"):
            if getattr(settings, name) != getattr(self.settings, name):
                logger.warning("%s has changed: restart the daemon to apply it", name)
        self.settings = settings
        self.tokens = tokens
        dispatcher.max_queued = settings.max_queued
        with dispatcher.reconfiguring():
            changes = await apply_devices(self._constellation, devices.devices, settings.drain)
        logger.info("the configuration was read: %s", changes)
