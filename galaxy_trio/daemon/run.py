"""Runs the daemon: opens its store, constellation, task queue and HTTP server, and closes them in reverse order."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConfigError, ConnectionOptions, open_constellation
from galaxy_trio._counted import counted
from galaxy_trio.daemon import systemd
from galaxy_trio.daemon.device_watch import watch_devices
from galaxy_trio.daemon.reload import apply_devices
from galaxy_trio.daemon.settings import Settings, read_settings
from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.store import Store, open_store
from galaxy_trio.daemon.task_queue import TaskQueue, open_task_queue
from galaxy_trio.daemon.web.event_stream import ServerSentEventStream
from galaxy_trio.daemon.web.listening import open_listeners, parse_address
from galaxy_trio.daemon.web.metrics import Metrics
from galaxy_trio.daemon.web.page import PAGE_PATHS
from galaxy_trio.daemon.web.routes import make_app
from galaxy_trio.daemon.web.security import Security
from galaxy_trio.daemon.web.serving import serve_http
from galaxy_trio.daemon.web.short_forms import short_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from galaxy_trio import Constellation, ConstellationConfig, DeviceConfig
    from galaxy_trio.daemon.store.records import TaskRecord
    from galaxy_trio.daemon.web.listening import Address

logger: Final = logging.getLogger(__name__)

_DELETE_INTERVAL: Final = 60.0
"""Seconds between deletions of old tasks, and so until changed settings are applied."""


async def run_daemon(
    settings: Settings,
    stop: trio.Event,
    *,
    on_listening: Callable[[Address], None],
    connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None = None,
    reload_at_hangup: bool = True,
) -> None:
    """Run the daemon until `stop` is set.

    When `stop` is set, no more tasks begin, running tasks may go on for `drain` seconds, and queued tasks stay on disk for the next daemon.
    Cancelling stops the running tasks, which become `lost`.

    Args:
        settings: The settings in ``galaxy.toml``.
        stop: Set by the caller to stop the daemon.
        on_listening: Called with the address as soon as requests are answered. Tasks are accepted when the queued ones have been counted.
        connect: Opens the stream to a device's server, instead of TCP.
        reload_at_hangup: Whether SIGHUP reloads the configuration. Otherwise the daemon leaves SIGHUP alone.

    Raises:
        ConfigError: The configuration is invalid.
        StoreError: The database cannot be used, or another daemon uses it.
        ListenError: The daemon cannot listen at the address.
    """
    devices = await trio.to_thread.run_sync(settings.read_devices)
    tokens = await trio.to_thread.run_sync(settings.read_tokens)
    event_stream = ServerSentEventStream()
    async with AsyncExitStack() as stack:
        # Opened first: without a receiver, SIGHUP would end the process.
        hangups = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP)) if reload_at_hangup else None
        # They are closed in reverse order: each part outlives its users.
        store = await stack.enter_async_context(open_store(settings.database))
        address, listeners = await stack.enter_async_context(
            open_listeners(
                parse_address(settings.listen),
                has_token=bool(tokens),
                socket_mode=settings.socket_mode,
                socket_group=settings.socket_group,
            )
        )
        constellation = await stack.enter_async_context(
            open_constellation(devices, connect=connect, options=ConnectionOptions(proxy=True))
        )
        daemon = _Daemon(settings, devices, tokens, store, constellation, event_stream)
        events = await stack.enter_async_context(constellation.subscribe())
        nursery = await stack.enter_async_context(trio.open_nursery())
        task_queue = await stack.enter_async_context(
            open_task_queue(
                store,
                constellation,
                settings.max_queued,
                daemon.on_change,
                max_running=devices.max_concurrent_tasks,
            )
        )
        metrics = daemon.metrics = Metrics(constellation, task_queue, event_stream)
        nursery.start_soon(watch_devices, events, constellation, task_queue, event_stream, metrics)
        nursery.start_soon(metrics.measure_delay)
        nursery.start_soon(daemon.delete_old_tasks)
        if hangups is not None:
            nursery.start_soon(daemon.reload_at_signals, hangups, task_queue)
        nursery.start_soon(systemd.ping_watchdog)
        app = Security(
            metrics.timed(make_app(store, constellation, task_queue, event_stream, metrics)),
            tokens=lambda: daemon.tokens,
            hosts=lambda: daemon.settings.allowed_hosts,
            open_paths=("/health", *PAGE_PATHS),
        )
        async with serve_http(app, listeners):
            on_listening(address)
            logger.info("listening at %s", address)
            await task_queue.resume()
            systemd.ready()
            await stop.wait()
            systemd.stopping()
            running, queued = counted(task_queue.running, "task"), counted(task_queue.queued, "task")
            logger.info("stopping, with %s running and %s queued", running, queued)
            await task_queue.drain(settings.drain)
            event_stream.close()
        nursery.cancel_scope.cancel()


def _fixed_settings(settings: Settings, devices: ConstellationConfig) -> dict[str, object]:
    """The settings that a reload does not change, in both files."""
    shared: dict[str, object] = attrs.asdict(
        devices, recurse=False, filter=lambda field, _: bool(field.eq) and field.name != "devices"
    )
    return {
        "listen": settings.listen,
        "socket_mode": settings.socket_mode,
        "socket_group": settings.socket_group,
        "database": settings.database,
        "log": settings.log,
        **shared,
    }


class _Daemon:
    """A running daemon's configuration, which a reload replaces, and its background work."""

    metrics: Metrics

    def __init__(
        self,
        settings: Settings,
        devices: ConstellationConfig,
        tokens: tuple[str, ...],
        store: Store,
        constellation: Constellation,
        event_stream: ServerSentEventStream,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        self._fixed = _fixed_settings(settings, devices)
        self._store = store
        self._constellation = constellation
        self._event_stream = event_stream

    def on_change(self, record: TaskRecord) -> None:
        """Publish and count a task whose state has changed on disk."""
        self._event_stream.publish("task", short_task(record))
        self.metrics.count_task(record)

    async def delete_old_tasks(self) -> None:
        """Delete old tasks at the start and periodically, according to the current settings."""
        while True:
            try:
                oldest = datetime.now(UTC) - timedelta(days=self.settings.keep_days)
                deleted = await self._store.delete_old(oldest, self.settings.keep_tasks)
            except StoreError as error:
                logger.warning("old tasks cannot be deleted: %s", error)
            else:
                if deleted:
                    logger.info("deleted %s", counted(deleted, "old task"))
            await trio.sleep(_DELETE_INTERVAL)

    async def reload_at_signals(self, signals: AsyncIterator[int], task_queue: TaskQueue) -> None:
        """Reload the configuration at each signal."""
        async for _ in signals:
            systemd.reloading()
            try:
                await self._reload(task_queue)
            except ConfigError as error:
                logger.error("the configuration was not reloaded, and nothing has changed: %s", error)  # noqa: TRY400
            systemd.ready()

    async def _reload(self, task_queue: TaskQueue) -> None:
        settings = await trio.to_thread.run_sync(read_settings, self.settings.path)
        devices = await trio.to_thread.run_sync(settings.read_devices)
        tokens = await trio.to_thread.run_sync(settings.read_tokens)
        if self.tokens and not tokens:
            raise ConfigError("the new configuration has no token: restart the daemon to run without one")
        for name, value in _fixed_settings(settings, devices).items():
            if value != self._fixed[name]:
                logger.warning("%s has changed: restart the daemon to apply it", name)
        self.settings = settings
        self.tokens = tokens
        task_queue.max_queued = settings.max_queued
        with task_queue.reconfiguring():
            changes = await apply_devices(self._constellation, devices.devices, settings.drain)
        logger.info("the configuration was reloaded: %s", changes)
