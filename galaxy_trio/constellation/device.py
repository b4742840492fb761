"""One device of a constellation, as its users see it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from galaxy_trio.constellation.reservation import Reservation
from galaxy_trio.constellation.task import BeforeSending, NotSentCallback, OnCancel, make_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from galaxy_trio.constellation.config import DeviceConfig
    from galaxy_trio.constellation.device_statistics import DeviceStatistics
    from galaxy_trio.constellation.kept_device import KeptDevice
    from galaxy_trio.constellation.profile import DeviceProfile
    from galaxy_trio.errors import GalaxyError
    from galaxy_trio.events import DeviceStatus
    from galaxy_trio.messages import DeviceInfo, TaskResult


class Device:
    """A device of a constellation. Made by `open_constellation` and `Constellation.add_device`.

    It is kept connected; tasks wait for it, first come, first served. Any number of tasks may use it at once.
    """

    def __init__(self, kept: KeptDevice) -> None:
        self._kept = kept

    def __repr__(self) -> str:
        return f"<Device {self.device_id!r}, {self.status.value}>"

    # ---- what it is

    @property
    def device_id(self) -> str:
        """Its name at the server."""
        return self._kept.device_id

    @property
    def config(self) -> DeviceConfig:
        """As it was configured."""
        return self._kept.config

    @property
    def profile(self) -> DeviceProfile:
        """What is known of it."""
        return self._kept.profile

    @property
    def status(self) -> DeviceStatus:
        """Where it stands now."""
        return self._kept.status

    @property
    def connected(self) -> bool:
        """Whether it could run a task now."""
        return self._kept.connected

    @property
    def failure(self) -> GalaxyError | None:
        """Why it was given up, while its status is `DeviceStatus.FAILED`."""
        return self._kept.failure

    @property
    def running(self) -> int:
        """How many of its slots are taken."""
        return self._kept.running

    @property
    def queued(self) -> int:
        """How many tasks and reservations wait for it."""
        return self._kept.queued

    def statistics(self) -> DeviceStatistics:
        """What it is now, and what became of it so far."""
        return self._kept.statistics()

    # ---- waiting for it

    async def wait_status(self, *statuses: DeviceStatus) -> DeviceStatus:
        """Wait until its status is one of these, however shortly, and return which.

        Raises:
            trio.ClosedResourceError: It was removed, or the constellation was closed.
        """
        return await self._kept.wait_status(*statuses)

    async def wait_connected(self) -> None:
        """Wait until it is connected.

        Raises:
            GalaxyError: It was given up; why.
            trio.ClosedResourceError: It was removed, or the constellation was closed.
        """
        await self._kept.wait_connected()

    async def connect(self) -> None:
        """Connect, stay connected from now on, and wait until it is. Cancelling only ends the wait.

        Raises:
            GalaxyError: It was given up; why.
            trio.ClosedResourceError: It was removed, or the constellation was closed.
        """
        await self._kept.connect(anew=False)

    async def reconnect(self) -> None:
        """Connect again now: close the connection, cut a wait short, forget a failure. Otherwise like `connect`.

        Running tasks continue on their own connections, which are not used again; idle connections are closed.
        """
        await self._kept.connect(anew=True)

    async def disconnect(self) -> None:
        """Close its connections, and stay away until `connect`. Returns when all are closed; cancelling does not undo it.

        What runs is stopped and raises `ConnectionLost`; what waits goes on waiting.
        """
        await self._kept.disconnect()

    # ---- work

    async def device_info(self, *, timeout: float = 10.0) -> DeviceInfo:
        """Ask the server what it knows about the device, when it is connected.

        Args:
            timeout: Seconds for all of it; `math.inf` for no limit.

        Raises:
            GalaxyError: As for `Connection.device_info`; or the device was given up.
        """
        return await self._kept.device_info(timeout)

    async def run_task(
        self,
        request: str,
        *,
        timeout: float = 1000.0,
        task_id: str | None = None,
        on_cancel: OnCancel = "stop",
        before_sending: BeforeSending | None = None,
        on_not_sent: NotSentCallback | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> TaskResult:
        """Give the device a task when its turn has come, and wait for its end.

        It waits for as long as the device is not connected or has other tasks to do. A running task has a connection to itself, and
        **cancelling and the timeout stop it** by closing that connection: it is closed when the call returns. A task that is known not to
        have run is sent again; one that may have run is not.

        Args:
            request: What to do, in words.
            timeout: Seconds to wait for the end, from the send on; `math.inf` for no limit.
            task_id: The task's name, used once, of at most 64 characters; a fresh uuid if not given.
            on_cancel: ``"abandon"`` sends it on the device's shared connection: that is cheaper, but when it is cancelled or its time
                is up it goes on, and the device stays occupied until it has ended, for at most 300 s.
            before_sending: Awaited with the device's name when the device is there and nothing has left, such as to write down that the
                task may run from now on. Awaited again if the connection is lost even then. What it raises comes out, and nothing has left.
            on_not_sent: Awaited with the device's name if the task is known not to have run although `before_sending` was awaited: the
                device turned out to have left. The task waits again then; what this raises comes out instead.
            task_status: Told the task's id when the server has accepted it.

        Raises:
            QueueFull: Too many tasks wait for the device already.
            RequestTimeout: It did not end in time.
            RequestRejected: The server refused it, and the device is there; it never ran.
            InvalidMessage: A reply is broken, or the request holds what JSON cannot.
            MessageTooLarge: The request is above the limit; nothing was sent.
            ConnectionLost: The connection was lost after the task was sent: whether it ran is not known. Or `disconnect` was called.
            ConnectFailed: The device was given up; why.
            NoSuchDevice: The device was removed.
            trio.ClosedResourceError: The constellation was closed.
        """
        return await self._kept.run_task(
            make_task(request, timeout, task_id, on_cancel, before_sending, on_not_sent, task_status)
        )

    @asynccontextmanager
    async def reserve(self) -> AsyncGenerator[Reservation]:
        """Wait for a slot, and hold it for the length of the block. Nothing is sent yet.

        Raises:
            QueueFull: Too many tasks wait for the device already.
            Exception: As for `run_task`, when the device is given up, removed or closed.
        """
        async with self._kept.reserve() as lease:
            yield Reservation(self._kept, lease)
