"""Runs the daemon: its HTTP server, and one life after the other in its database."""

from __future__ import annotations

import logging
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.background import open_background
from galaxy_trio.daemon import systemd
from galaxy_trio.daemon.configuration import read_configuration
from galaxy_trio.daemon.life import Life
from galaxy_trio.daemon.store.dialects import database_at
from galaxy_trio.daemon.web.current_app import CurrentApp
from galaxy_trio.daemon.web.listening import open_listeners, parse_address
from galaxy_trio.daemon.web.page import PAGE_PATHS
from galaxy_trio.daemon.web.security import Security
from galaxy_trio.daemon.web.serving import serve_http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio import DeviceConfig
    from galaxy_trio.daemon.settings import Settings
    from galaxy_trio.daemon.web.listening import Address

logger: Final = logging.getLogger(__name__)


async def run_daemon(
    settings: Settings,
    stop: trio.Event,
    *,
    on_listening: Callable[[Address], None],
    connect: Callable[[DeviceConfig], Awaitable[trio.abc.Stream]] | None = None,
    reload_at_hangup: bool = True,
) -> None:
    """Run the daemon until `stop` is set.

    When `stop` is set, no more tasks begin, running tasks may go on for `drain` seconds, and queued tasks stay in the database for other
    daemons and for the next one. Cancelling stops the running tasks, which become `lost`. If the daemon loses its lease, it goes on with a
    new life as soon as it can.

    Args:
        settings: The settings in ``galaxy.toml``.
        stop: Set by the caller to stop the daemon.
        on_listening: Called with the address as soon as requests are answered. Tasks are accepted when the queued ones have been counted.
        connect: Opens the stream to a device's server, instead of TCP.
        reload_at_hangup: Whether SIGHUP reloads the configuration. Otherwise the daemon leaves SIGHUP alone.

    Raises:
        ConfigError: The configuration is invalid.
        StoreError: The database cannot be used, or another daemon uses it alone.
        ListenError: The daemon cannot listen at the address.
    """
    configuration = await read_configuration(settings)
    # Before anything else is opened, so that the first problem is reported.
    await trio.to_thread.run_sync(database_at(settings.database).check)
    async with AsyncExitStack() as stack:
        # Opened first: without a receiver, SIGHUP would end the process.
        hangups = stack.enter_context(trio.open_signal_receiver(signal.SIGHUP)) if reload_at_hangup else None
        # They are closed in reverse order: each part outlives its users.
        address, listeners = await stack.enter_async_context(
            open_listeners(
                parse_address(settings.listen),
                has_token=bool(configuration.tokens),
                socket_mode=settings.socket_mode,
                socket_group=settings.socket_group,
            )
        )
        app = CurrentApp("the daemon is starting: retry in a moment")
        secured = Security(
            app,
            tokens=lambda: configuration.tokens,
            hosts=lambda: configuration.settings.allowed_hosts,
            open_paths=("/health", *PAGE_PATHS),
        )
        life = Life(configuration, app, connect)
        await stack.enter_async_context(serve_http(secured, listeners))
        nursery = await stack.enter_async_context(open_background())
        nursery.start_soon(systemd.ping_watchdog)
        if hangups is not None:
            nursery.start_soon(life.reload_at_signals, hangups)

        def on_first_answer() -> None:
            on_listening(address)
            logger.info("listening at %s", address)

        await life.run(stop, on_first_answer)
