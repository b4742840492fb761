"""Tasks that survive: from the disk to a device, and back to the disk.

A task is on disk before anybody is told that it was accepted, and ``running`` is on disk before anything of it leaves. So a daemon
that is killed at any point knows afterwards what has not begun, which runs, and what may have run, which is ``lost``: none is begun twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable  # attrs reads annotations at run time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConnectionLost, GalaxyError, NoSuchDevice, TaskStatus
from galaxy_trio.daemon.operations import WrongState
from galaxy_trio.daemon.records import TaskState
from galaxy_trio.daemon.schema import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from galaxy_trio import Constellation, TaskResult
    from galaxy_trio.daemon.records import TaskRecord, TaskRequest
    from galaxy_trio.daemon.store import Store

logger: Final = logging.getLogger(__name__)

_AGAIN: Final = 5.0
"""Seconds to wait before what could not be written is tried again."""
_WRITING: Final = 10.0
"""Seconds that a write may take while nothing can cancel it."""


class DaemonBusy(Exception):
    """Nothing is accepted now; why."""


@attrs.frozen
class _End:
    """How a task ended."""

    state: TaskState
    error: str | None = None
    result: str | None = None


class _NothingBegins(Exception):
    """The daemon is being stopped: what waits is for the next one."""


@attrs.define
class _Running:
    """Whether a task may have run."""

    begin_once: Callable[[str], Awaitable[None]]
    begun: bool = False

    async def begin(self, device_id: str) -> None:
        """It is about to be sent; perhaps once more, after a connection that was lost before."""
        if not self.begun:
            await self.begin_once(device_id)
            self.begun = True


class Dispatcher:
    """Runs the tasks of a store on a constellation. Made by `open_dispatcher`.

    Args:
        nursery: Of the tasks; the end of the daemon cancels it.
        max_queued: Tasks that may wait; one more is refused.
        on_change: Told of each task whose state is another, when it is on disk. Must not block or raise.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        constellation: Constellation,
        max_queued: int,
        on_change: Callable[[TaskRecord], None],
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._constellation = constellation
        self.max_queued = max_queued
        self._on_change = on_change
        # Those that wait or run, by id; each leaves when it has ended.
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}
        self._running = 0
        self._at_rest = trio.Event()
        self._closed = False
        self._rearranging: trio.Event | None = None

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._scopes) - self._running

    @property
    def running(self) -> int:
        """How many run."""
        return self._running

    @property
    def closed(self) -> bool:
        """Whether nothing is begun any more."""
        return self._closed

    # ---- what clients do

    async def submit(self, request: TaskRequest) -> tuple[TaskRecord, bool]:
        """Accept a task; it is on disk when this returns. Cancelling may leave it accepted.

        Returns:
            The task, and whether it is new: the same idempotency key gives the same task.

        Raises:
            NoSuchDevice: There is no device of that name.
            DaemonBusy: Too many wait already, or the daemon is being stopped.
            StoreError: It could not be written; nothing was accepted.
        """
        is_there = request.device is None or request.device in self._constellation.devices
        if not is_there and self._rearranging is None:
            raise NoSuchDevice(f"there is no device {request.device!r}")
        self._check_room()
        record, is_new = await self._store.add(request)
        if is_new:
            self._begin(record)
        return record, is_new

    async def retry(self, task_id: str) -> TaskRecord:
        """Run a task that has ended once more, as a new one: the only way in which one runs twice."""
        self._check_room()
        record = await self._store.retry(task_id)
        self._begin(record)
        return record

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task. One that waits will never run; one that runs is stopped on its device, and this waits until it is.

        Returns:
            The task as it is now; what had ended already stays as it was.

        Raises:
            NoSuchTask: There is none of this id.
            StoreError: It could not be written down; the task goes on.
        """
        record, changed = await self._store.cancel_queued(task_id)
        if changed:
            self._on_change(record)
        scope = self._scopes.get(task_id)
        if scope is None:
            return record
        scope.cancel()
        await self.wait(task_id)
        return await self._store.get(task_id) or record

    async def wait(self, task_id: str) -> None:
        """Wait until a task has ended, if it has not."""
        if task_id in self._scopes:
            await self._ended.setdefault(task_id, trio.Event()).wait()

    def _check_room(self) -> None:
        if self._closed:
            raise DaemonBusy("the daemon is being stopped: try again when it is back")
        if self.queued >= self.max_queued:
            raise DaemonBusy(f"{self.max_queued:,} tasks wait already: this one was not taken")

    # ---- their way

    async def resume(self) -> None:
        """Begin with what a daemon before this one has left; to be called once, before anything else."""
        lost = await self._store.recover()
        queued = await self._store.queued()
        for record in queued:
            self._begin(record)
            # Those that trio begins together, it begins in any order.
            await trio.lowlevel.checkpoint()
        if lost or queued:
            logger.info("from before: %s tasks were running and are lost, %s wait", lost, len(queued))

    def _begin(self, record: TaskRecord) -> None:
        scope = self._scopes[record.id] = trio.CancelScope()
        self._on_change(record)
        self._nursery.start_soon(self._run, record, scope)

    async def _run(self, record: TaskRecord, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._run_until_ended(record, scope)
        finally:
            del self._scopes[record.id]
            ended = self._ended.pop(record.id, None)
            if ended is not None:
                ended.set()

    async def _run_until_ended(self, record: TaskRecord, scope: trio.CancelScope) -> None:
        """Run it; what cannot be written now, and what has lost its device for a moment, is tried again, for nothing has run yet."""
        while not self._closed:
            try:
                await self._run_once(record, scope)
            except StoreError as error:
                logger.error("task %s cannot be begun: %s; trying again", record.id, error)  # noqa: TRY400  # it says it all
                await trio.sleep(_AGAIN)
                continue
            except NoSuchDevice as gone:
                if self._rearranging is not None:
                    await self._rearranging.wait()
                    continue
                if self._is_there_again(record):
                    await trio.lowlevel.checkpoint()
                    continue
                await self._finish(record.id, _End(TaskState.FAILED, str(gone)))
            except (GalaxyError, trio.ClosedResourceError) as error:
                # When all is being closed, it waits for the next daemon.
                if not self._closed:
                    await self._finish(record.id, _End(TaskState.FAILED, str(error)))
            except (WrongState, _NothingBegins):
                # It was cancelled just now, or is for the next daemon.
                pass
            return

    def _is_there_again(self, record: TaskRecord) -> bool:
        return record.asked.device is not None and record.asked.device in self._constellation.devices

    async def _run_once(self, record: TaskRecord, scope: trio.CancelScope) -> None:
        """Run it, when its turn has come. `running` is on disk before anything leaves; raises why it has not begun."""
        running = _Running(partial(self._begin_running, record.id))
        # Unless something else becomes of it.
        end = _End(TaskState.LOST, "the daemon was stopped while the task ran: it may have run")
        try:
            end = await self._outcome(record, running)
        except trio.Cancelled:
            if scope.cancel_called:
                end = _End(TaskState.CANCELLED)
            raise
        finally:
            if running.begun:
                self._running -= 1
                if not self._running:
                    self._at_rest.set()
                    self._at_rest = trio.Event()
                await self._finish_at_once(record.id, end)

    async def _begin_running(self, task_id: str, device_id: str) -> None:
        if self._closed:
            raise _NothingBegins
        self._on_change(await self._store.mark_running(task_id, device_id))
        self._running += 1

    async def _outcome(self, record: TaskRecord, running: _Running) -> _End:
        try:
            ended = await self._run_task(record, running)
        except (GalaxyError, trio.ClosedResourceError) as error:
            if not running.begun:
                raise
            is_lost = isinstance(error, ConnectionLost | trio.ClosedResourceError)
            return _End(TaskState.LOST if is_lost else TaskState.FAILED, str(error))
        # It may be as large as a message may be.
        result = await trio.to_thread.run_sync(json.dumps, ended.result)
        if ended.status is TaskStatus.COMPLETED:
            return _End(TaskState.COMPLETED, None, result)
        return _End(TaskState.FAILED, ended.error, result)

    async def _run_task(self, record: TaskRecord, running: _Running) -> TaskResult:
        asked = record.asked
        if asked.device is None:
            return await self._constellation.run_task(
                asked.request,
                os=asked.os,
                capabilities=asked.capabilities,
                timeout=asked.timeout,
                task_id=record.id,
                before_sending=running.begin,
            )
        device = self._constellation.devices.get(asked.device)
        if device is None:
            raise NoSuchDevice(f"there is no device {asked.device!r} any more")
        return await device.run_task(
            asked.request, timeout=asked.timeout, task_id=record.id, before_sending=running.begin
        )

    async def _finish_at_once(self, task_id: str, end: _End) -> None:
        """Write down how it ended, whoever is cancelled; if that takes too long or fails, it goes on behind."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _WRITING):
            try:
                self._on_change(await self._store.finish(task_id, end.state, error=end.error, result=end.result))
            except StoreError as error:
                logger.error("how task %s ended cannot be written: %s; trying again", task_id, error)  # noqa: TRY400
            else:
                return
        self._nursery.start_soon(self._finish, task_id, end)

    async def _finish(self, task_id: str, end: _End) -> None:
        """Write down how it ended, again and again while that cannot be written: what has run is not forgotten over a full disk."""
        while True:
            try:
                record = await self._store.finish(task_id, end.state, error=end.error, result=end.result)
            except StoreError as error:
                logger.warning("how task %s ended cannot be written: %s; trying again", task_id, error)
                await trio.sleep(_AGAIN)
            except WrongState:
                # It was cancelled just now.
                return
            else:
                self._on_change(record)
                return

    # ---- other devices

    @contextmanager
    def rearranging(self) -> Generator[None]:
        """While the block changes which devices there are, tasks of a device that is missing wait for the end of it."""
        self._rearranging = done = trio.Event()
        try:
            yield
        finally:
            self._rearranging = None
            done.set()

    # ---- the end

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and let what runs come to its end for so long; what waits stays on disk for the next daemon."""
        self.close()
        with trio.move_on_after(seconds):
            while self._running:
                await self._at_rest.wait()

    def close(self) -> None:
        """Begin nothing more."""
        self._closed = True


@asynccontextmanager
async def open_dispatcher(
    store: Store, constellation: Constellation, max_queued: int, on_change: Callable[[TaskRecord], None]
) -> AsyncGenerator[Dispatcher]:
    """Run the tasks of a store for the length of the block. What runs at its end is stopped, and is ``lost``: see `Dispatcher.drain`."""
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher(nursery, store, constellation, max_queued, on_change)
        try:
            yield dispatcher
        finally:
            dispatcher.close()
            nursery.cancel_scope.cancel()
