"""One connection to a device's server that is kept up: it comes back when it is lost, and knows when there is no sense in it.

See "Reconnecting" in docs/reference/wire.md.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio._connection.backoff import MAXIMUM, Backoff, says_not_connected
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
"""Seconds that the server has to tell what it knows of a device."""
ASK_AGAIN: Final = 30.0
"""Seconds to wait before it is asked again, when it knew nothing, or its answer was broken or did not come."""

_QUOTED: Final = 500
"""Characters of the server's words that are kept."""


class Supervisor:
    """A device's supervised connection.

    Args:
        connector: Opens connections.
        on_status: Called with each new status, in the step in which it changes; never with `DeviceStatus.BUSY`. Must not block or raise.
        on_information: Called with the device's information. Must not block or raise.
        publish: Called with each event. Must not block or raise.

    Attributes:
        connection: The one that is up now, registered.
        failure: Why it was given up.
        problem: Why there is none now, in words.
        next_try: When there is to be another try, on trio's clock.
        connects: How often there was one.
        failures: How many tries failed in a row.
        connected_at: Since when there is one.
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
        self._over = False
        self._wish = trio.Event()
        self._at_rest = trio.Event()
        self._restart = False
        self._departed: str | None = None
        self._was_known = False
        self._trying = trio.CancelScope()
        self._staying: trio.CancelScope | None = None

    # ---- what is wanted of it

    def connect(self, *, now: bool = False) -> None:
        """Connect, and stay connected, from now on. A failure is forgotten.

        Args:
            now: Start immediately: close the connection that there is, end the wait for the next attempt.
        """
        self._wanted = True
        if self._at_rest.is_set():
            self._at_rest = trio.Event()
        self._wish.set()
        if now or self.failure is not None:
            self.failure = None
            self._on_status(DeviceStatus.DISCONNECTED)
        if now:
            self._restart = True
            self._interrupt()

    def disconnect(self) -> trio.Event:
        """Be disconnected from now on.

        Returns:
            Set when there is no connection and no try any more, also if somebody wants it again meanwhile.
        """
        self._wanted = False
        self._interrupt()
        return self._at_rest

    def end(self) -> None:
        """Come to an end: `run` returns soon."""
        self._over = True
        self.disconnect()
        self._wish.set()

    @property
    def _interrupted(self) -> bool:
        return self._restart or not self._wanted

    def _interrupt(self) -> None:
        # A connection is closed in good order, and a try at once.
        (self._staying or self._trying).cancel()

    # ---- its task

    async def run(self) -> None:
        """Keep the connection up until `end` is called."""
        try:
            while not self._over:
                if self._wanted:
                    await self._keep_up()
                else:
                    await self._rest()
        finally:
            if self.failure is None:
                self._on_status(DeviceStatus.DISCONNECTED)
            self._at_rest.set()

    async def _keep_up(self) -> None:
        """Connect again and again, until it is not wanted any more, makes no sense, or is to begin anew."""
        self._restart = False
        self.failures = 0
        backoff = self._make_backoff()
        try:
            with trio.CancelScope() as self._trying:
                while not self._interrupted:
                    await self._connect_once(backoff)
                    self._pass_rest()
        except GalaxyError as error:
            self._give_up(error)
        finally:
            self.next_try = None
            self._pass_rest()

    async def _rest(self) -> None:
        if self.failure is None:
            self._on_status(DeviceStatus.DISCONNECTED)
        self._wish = trio.Event()
        self._at_rest.set()
        await self._wish.wait()

    def _pass_rest(self) -> None:
        # Whoever has let it go waits for this moment, which is all there is of it when somebody else wants it again.
        self._at_rest.set()
        self._at_rest = trio.Event()

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
        logger.warning("device %r is given up: %s", self._device_id, error)
        self._publish(DeviceDisconnected(self._device_id, self.problem, None))
        self._on_status(DeviceStatus.FAILED)
        self._publish(DeviceFailed(self._device_id, str(error)))

    async def _connect_once(self, backoff: Backoff) -> None:
        """Connect, stay until the connection ends, wait for the time of the next try."""
        self.next_try = None
        self._on_status(DeviceStatus.CONNECTING)
        lived = 0.0
        lost: ConnectionLost | None = None
        failed: GalaxyError | None = None
        try:
            async with self._connector.open(on_event=self._happened) as connection:
                began = trio.current_time()
                lost = await self._stay(connection)
                lived = trio.current_time() - began
        except GalaxyError as error:
            failed = error
        except BaseException:
            # It was let go of while the lost connection was being closed.
            if lost is not None:
                self._publish_disconnected(lost.reason)
            raise
        # It may have been let go of in the step in which it was lost: nobody waits for another try then.
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
                # It was let go of, and is wanted again.
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

    async def _stay(self, connection: Connection) -> ConnectionLost | None:
        """Be connected. Returns why the connection was lost; None when it is not wanted any more."""
        self._departed = None
        self._was_known = False
        self.connection = connection
        try:
            with trio.CancelScope() as staying:
                self._staying = staying
                await self._ask(connection)
                # The answer may have come in the step in which it was let go of.
                if not connection.closed and not staying.cancel_called:
                    self.connects += 1
                    self.connected_at = wall_clock.now()
                    self.failures = 0
                    self.problem = None
                    self._on_status(DeviceStatus.IDLE)
                    self._publish(DeviceConnected(self._device_id))
                return await self._wait_lost(connection)
            self._on_status(DeviceStatus.DISCONNECTED)
            departed = self._departure_reason()
            if departed is None:
                self._publish_disconnected("this side let go of it")
                return None
            reason = f"the device has left its server, which says: {departed}"
            return ConnectionLost(f"device {self._device_id!r} was lost: {reason}", reason=reason)
        finally:
            self.connection = self._staying = self.connected_at = None

    async def _wait_lost(self, connection: Connection) -> ConnectionLost | None:
        """Wait until the connection has ended; what is not known of the device by then is asked again and again."""
        while not self._was_known:
            with trio.move_on_after(ASK_AGAIN):
                return await connection.wait_closed()
            await self._ask(connection)
        return await connection.wait_closed()

    def _departure_reason(self) -> str | None:
        return self._departed

    def _happened(self, event: Event) -> None:
        match event:
            case ConnectionOpened():
                self._on_status(DeviceStatus.REGISTERING)
            case ConnectionEnded():
                # In the step in which it is known, and not when the task that stays has its turn.
                self._on_status(DeviceStatus.DISCONNECTED)
            case _:
                self._publish(event)

    def forward(self, event: Event) -> None:
        """Tell of what happened on a connection of a task: its beginning and end are its own affair."""
        if not isinstance(event, ConnectionOpened | ConnectionEnded):
            self._publish(event)

    # ---- what the server knows of the device

    async def _ask(self, connection: Connection) -> str | None:
        """Learn what the server knows. Returns its words when that is nothing."""
        try:
            info = await connection.device_info(timeout=INFORMATION_TIMEOUT)
        except RequestRejected as rejected:
            return _quoted(rejected.words) or "the server knows nothing of it"
        except (GalaxyError, trio.ClosedResourceError) as error:
            logger.info("no information about device %r: %s", self._device_id, error)
        else:
            self._was_known = True
            self._on_information(info)
            self._publish(InformationUpdated(self._device_id, info))
        return None

    async def has_departed(self, words: str = "") -> bool:
        """Whether the device has left its server, of which a task that failed may be a sign.

        The connection is dropped then, and the server will refuse another until the device is back.

        Args:
            words: The server's, if it refused something.
        """
        connection = self.connection
        if connection is None:
            return True
        unknown = await self._ask(connection)
        # A server that never knew anything of it says the same while it is there.
        words = _quoted(words)
        departed = (unknown is not None and self._was_known) or says_not_connected(words)
        if departed and self.connection is connection and self._staying is not None:
            self._departed = unknown or words
            self._on_status(DeviceStatus.DISCONNECTED)
            self._staying.cancel()
        return self.connection is not connection or self._departed is not None


def _quoted(words: str) -> str:
    """What a server says, which may be long, in one line."""
    return " ".join(words[:_QUOTED].split())
