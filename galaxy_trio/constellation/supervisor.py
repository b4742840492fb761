"""Supervises a device's connection: reconnects with backoff, gives up on permanent errors.

See "Reconnecting" in docs/reference/wire.md.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio._connection.backoff import MAXIMUM, Backoff, says_not_connected
from galaxy_trio.constellation.profile import MAX_INFORMATION, contradiction_of, is_too_large
from galaxy_trio.errors import ConnectionLost, GalaxyError, RequestRejected
from galaxy_trio.events import (
    ConnectionEnded,
    ConnectionOpened,
    DeviceConnected,
    DeviceDisconnected,
    DeviceFailed,
    DeviceNeedsAttention,
    DeviceStatus,
    InformationUpdated,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._connection.connection import Connection
    from galaxy_trio.constellation.connector import Connector
    from galaxy_trio.events import Event
    from galaxy_trio.messages import DeviceInfo

logger: Final = logging.getLogger(__name__)

INFORMATION_TIMEOUT: Final = 10.0
"""Seconds for the server to send a device's information."""
ASK_AGAIN: Final = 30.0
"""Seconds before the next request for the information, when the server had none, or its reply was invalid or did not arrive."""

_MAX_WORDS: Final = 500
"""Characters of a server's error that are quoted."""


class Supervisor:
    """A device's supervised connection.

    Args:
        connector: Opens connections.
        on_status: Called with each new status, in the step in which it changes; never with `DeviceStatus.BUSY`. Must not block or raise.
        on_information: Called with the device's information. Must not block or raise.
        publish: Called with each event. Must not block or raise.

    Attributes:
        connection: The connection, while it is registered.
        failure: Why the device was given up.
        problem: Why the device is not connected, in words.
        next_try: When the next attempt to connect begins, on trio's clock.
        connects: How many times the device was connected.
        failures: Attempts to connect that failed in a row.
        connected_at: When the device was connected, while it is.
    """

    def __init__(
        self,
        connector: Connector,
        on_status: Callable[[DeviceStatus], None],
        on_information: Callable[[DeviceInfo], None],
        publish: Callable[[Event], None],
    ) -> None:
        self._connector = connector
        self._on_status = on_status
        self._on_information = on_information
        self._publish = publish
        self._device_id = connector.config.device_id
        self.connection: Connection | None = None
        self.failure: GalaxyError | None = None
        self.problem: str | None = None
        self.next_try: float | None = None
        self.connects: int = 0
        self.failures: int = 0
        self.connected_at: datetime | None = None
        self._wanted = connector.config.auto_connect
        self._ending = False
        self._wake = trio.Event()
        # Set while there is neither a connection nor an attempt.
        self._disconnected = trio.Event()
        self._restart = False
        # The server's words, when the device has left it while the connection stands.
        self._departed: str | None = None
        self._has_information = False
        # The contradiction between the configuration and the information that was reported last.
        self._contradiction: str | None = None
        self._attempts_scope = trio.CancelScope()
        self._connected_scope: trio.CancelScope | None = None

    def connect(self, *, now: bool = False) -> None:
        """Connect, and stay connected from now on, also after the device was given up.

        Args:
            now: Connect immediately: close the connection, and end the wait for the next attempt.
        """
        self._wanted = True
        if self._disconnected.is_set():
            self._disconnected = trio.Event()
        self._wake.set()
        if now or self.failure is not None:
            self.failure = None
            self._on_status(DeviceStatus.DISCONNECTED)
        if now:
            self._restart = True
            self._interrupt()

    def disconnect(self) -> trio.Event:
        """Close the connection, and stay disconnected from now on.

        Returns:
            An event that is set when the connection is closed and no attempt is in progress, even if `connect` is called before.
        """
        self._wanted = False
        self._interrupt()
        return self._disconnected

    def end(self) -> None:
        """Disconnect, and return from `run`."""
        self._ending = True
        self.disconnect()
        self._wake.set()

    @property
    def stays_connected(self) -> bool:
        """Whether the connection is kept up. False from the step of `disconnect` on, in which the connection is still there."""
        return self._wanted

    @property
    def _interrupted(self) -> bool:
        return self._restart or not self._wanted

    def _interrupt(self) -> None:
        # A connection is closed with a handshake, an attempt immediately.
        (self._connected_scope or self._attempts_scope).cancel()

    async def run(self) -> None:
        """Keep the connection up until `end` is called."""
        try:
            while not self._ending:
                if self._wanted:
                    await self._stay_connected()
                else:
                    await self._wait_until_wanted()
        finally:
            if self.failure is None:
                self._on_status(DeviceStatus.DISCONNECTED)
            self._disconnected.set()

    async def _stay_connected(self) -> None:
        """Connect and reconnect, until `disconnect` or `connect(now=True)` is called, or an error is permanent."""
        self._restart = False
        self.failures = 0
        backoff = self._make_backoff()
        try:
            with trio.CancelScope() as self._attempts_scope:
                while not self._interrupted:
                    await self._connect_once(backoff)
                    self._notify_disconnected()
        except GalaxyError as error:
            self._give_up(error)
        finally:
            self.next_try = None
            self._notify_disconnected()

    async def _wait_until_wanted(self) -> None:
        if self.failure is None:
            self._on_status(DeviceStatus.DISCONNECTED)
        self._wake = trio.Event()
        self._disconnected.set()
        await self._wake.wait()

    def _notify_disconnected(self) -> None:
        # A call of `disconnect` waits for this, even if another call has asked to connect since: so the event is set and replaced.
        self._disconnected.set()
        self._disconnected = trio.Event()

    def _make_backoff(self) -> Backoff:
        settings = self._connector.settings
        return Backoff(
            first=settings.reconnect_delay,
            maximum=max(MAXIMUM, settings.reconnect_delay),
            max_retries=self._connector.config.max_retries,
            random=settings.random,
        )

    def _give_up(self, error: GalaxyError) -> None:
        self._wanted = False
        self.failure = error
        self.problem = str(error)
        logger.warning("device %r was given up: %s", self._device_id, error)
        self._publish(DeviceDisconnected(self._device_id, self.problem, None))
        self._on_status(DeviceStatus.FAILED)
        self._publish(DeviceFailed(self._device_id, str(error)))

    async def _connect_once(self, backoff: Backoff) -> None:
        """Connect, wait for the end of the connection, then for the time of the next attempt."""
        self.next_try = None
        self._on_status(DeviceStatus.CONNECTING)
        lived = 0.0
        lost: ConnectionLost | None = None
        failed: GalaxyError | None = None
        try:
            async with self._connector.open(on_event=self._on_event) as connection:
                began = trio.current_time()
                lost = await self._supervise(connection)
                lived = trio.current_time() - began
        except GalaxyError as error:
            failed = error
        except BaseException:
            # Cancelled while the lost connection was being closed.
            if lost is not None:
                self._publish_disconnected(lost.reason)
            raise
        # The connection may have been lost in the step in which this side disconnected: no attempt follows then.
        if self._interrupted:
            if lost is not None:
                self._publish_disconnected(lost.reason)
            return
        try:
            if failed is not None:
                wait = backoff.failed(failed, now=trio.current_time())
                self.problem = str(failed)
            elif lost is not None:
                wait = backoff.lost(lived, lost, now=trio.current_time())
                self.problem = lost.reason
            else:
                # This side disconnected, and connects again.
                return
        finally:
            self.failures = backoff.failures
        await self._wait(wait, needs_attention=backoff.needs_attention)

    def _publish_disconnected(self, reason: str) -> None:
        self.problem = reason
        next_try = wall_clock.now() if self._wanted else None
        self._publish(DeviceDisconnected(self._device_id, reason, next_try))

    async def _wait(self, seconds: float, *, needs_attention: bool) -> None:
        problem = self.problem or ""
        self.next_try = trio.current_time() + seconds
        level = logging.WARNING if needs_attention else logging.INFO
        logger.log(level, "device %r is not connected: %s; trying again in %.1f s", self._device_id, problem, seconds)
        self._on_status(DeviceStatus.DISCONNECTED)
        next_try = wall_clock.now() + timedelta(seconds=seconds)
        self._publish(DeviceDisconnected(self._device_id, problem, next_try))
        if needs_attention:
            self._publish(DeviceNeedsAttention(self._device_id, problem))
        await trio.sleep(seconds)

    async def _supervise(self, connection: Connection) -> ConnectionLost | None:
        """Report the device connected until the connection ends. Returns why it was lost; None when this side disconnected."""
        self._has_information = False
        self.connection = connection
        try:
            with trio.CancelScope() as scope:
                self._connected_scope = scope
                await self._request_information(connection)
                # The reply may have arrived in the step in which this side disconnected.
                if not connection.closed and not scope.cancel_called:
                    self.connects += 1
                    self.connected_at = wall_clock.now()
                    self.failures = 0
                    self.problem = None
                    self._on_status(DeviceStatus.IDLE)
                    self._publish(DeviceConnected(self._device_id))
                return await self._wait_lost(connection)
            self._on_status(DeviceStatus.DISCONNECTED)
            if self._departed is None:
                self._publish_disconnected("this side disconnected it")
                return None
            reason = f"the device has left its server, which says: {self._departed}"
            return ConnectionLost(f"device {self._device_id!r} was lost: {reason}", reason=reason)
        finally:
            self.connection = self._connected_scope = self.connected_at = self._departed = None

    async def _wait_lost(self, connection: Connection) -> ConnectionLost | None:
        """Wait until the connection has ended. Until the device's information has arrived, request it every `ASK_AGAIN` seconds."""
        while not self._has_information:
            with trio.move_on_after(ASK_AGAIN):
                return await connection.wait_closed()
            await self._request_information(connection)
        return await connection.wait_closed()

    def _on_event(self, event: Event) -> None:
        match event:
            case ConnectionOpened():
                self._on_status(DeviceStatus.REGISTERING)
            case ConnectionEnded():
                # In the step in which the end is known: the supervising task runs later.
                self._on_status(DeviceStatus.DISCONNECTED)
            case _:
                self._publish(event)

    def forward(self, event: Event) -> None:
        """Publish an event of a task's connection, except its beginning and end, which do not change the device's status."""
        if not isinstance(event, ConnectionOpened | ConnectionEnded):
            self._publish(event)

    async def _request_information(self, connection: Connection) -> str | None:
        """Request the device's information. Returns the server's error if it has none."""
        try:
            info = await connection.device_info(timeout=INFORMATION_TIMEOUT)
        except RequestRejected as rejected:
            return _quoted(rejected.words) or "the server has no information about it"
        except (GalaxyError, trio.ClosedResourceError) as error:
            logger.info("no information about device %r: %s", self._device_id, error)
        else:
            if is_too_large(info):
                logger.warning(
                    "the server's information about device %r is ignored, because it takes more than %s bytes",
                    self._device_id,
                    f"{MAX_INFORMATION:,}",
                )
                return None
            self._has_information = True
            self._on_information(info)
            self._publish(InformationUpdated(self._device_id, info))
            self._report_contradiction(contradiction_of(self._connector.config, info))
        return None

    def _report_contradiction(self, contradiction: str | None) -> None:
        """Report a contradiction once, not after each reconnect."""
        if contradiction is not None and contradiction != self._contradiction:
            logger.warning("device %r: %s", self._device_id, contradiction)
            self._publish(DeviceNeedsAttention(self._device_id, contradiction))
        self._contradiction = contradiction

    async def has_departed(self, words: str = "") -> bool:
        """Find out whether the device has left its server: a failed task may be a sign of that.

        If it has, the connection is closed. The server refuses another one until the device is back.

        Args:
            words: The server's error, if it refused a request.
        """
        connection = self.connection
        if connection is None:
            return True
        unknown = await self._request_information(connection)
        # A server that never had information says the same while the device is there.
        words = _quoted(words)
        departed = (unknown is not None and self._has_information) or says_not_connected(words)
        if departed and self.connection is connection and self._connected_scope is not None:
            self._departed = unknown or words
            self._on_status(DeviceStatus.DISCONNECTED)
            self._connected_scope.cancel()
        return self.connection is not connection or self._departed is not None


def _quoted(words: str) -> str:
    """Shorten a server's error to one line of limited length."""
    return " ".join(words[:_MAX_WORDS].split())
