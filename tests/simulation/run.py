"""Carries out the plan of a run, mends all faults, waits for the end of everything, and checks that nothing is left."""

from __future__ import annotations

import logging
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from galaxy_trio import ConnectFailed, ConnectionOptions, GalaxyError, NoSuchDevice, open_connection
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.events import StatusChanged
from galaxy_trio.messages import TaskResult
from galaxy_trio.testing import run
from tests.simulation.disturbances import check_connections, connect_if_any, disturb
from tests.simulation.journal import ErrorLog, Journal
from tests.simulation.leftovers import left_in, left_on_server
from tests.simulation.plan import Disturbance, Plan, PlannedCall, PlannedConnection, TaskSeries
from tests.simulation.planner import make_plan
from tests.simulation.promises import broken_promises
from tests.simulation.world import HEARTBEAT, LIVENESS, OPENING, World, request_of, result_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from galaxy_trio._connection.connection import Connection
    from galaxy_trio.constellation.constellation import Constellation

_PATIENCE: Final = 1_000.0
"""Seconds until everything must have ended after all faults were mended."""
_ABANDON: Final = 40.0


@attrs.frozen
class Run:
    """The result of a seed.

    Attributes:
        broken: Descriptions of the broken promises.
    """

    plan: Plan
    journal: Journal
    broken: list[str]


def simulate(seed: int) -> Run:
    """Carry out the plan of a seed, and check the promises."""
    plan = make_plan(seed)
    journal = Journal()
    log = ErrorLog()
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(log)
    broken: list[str] = []
    try:
        run(partial(_Run(plan, journal, broken).run), seed=seed)
    except Exception as error:  # noqa: BLE001  # reported with the plan
        broken.append(f"something raised {error!r}: {_innermost(error)!r}")
    finally:
        logger.removeHandler(log)
    broken += [f"an error was logged: {error}" for error in log.errors]
    return Run(plan, journal, broken + broken_promises(plan, journal))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


class _Run:
    def __init__(self, plan: Plan, journal: Journal, broken: list[str]) -> None:
        self._plan = plan
        self._journal = journal
        self._broken = broken
        self._open = 0
        self._all_ended = trio.Event()
        # For the faults of series, while the plan is carried out.
        self._faults: trio.Nursery | None = None

    async def run(self) -> None:
        with trio.fail_after(100_000):
            world = World(self._plan, self._journal)
            async with world.running():
                async with trio.open_nursery() as callers:
                    await self._run_constellation(world, callers)
                    # The constellation is closed, and every call must end.
                    await self._wait_all_ended("after the constellation was closed")
                    callers.cancel_scope.cancel()
                await self._check_server(world, constellations=0)

    async def _run_constellation(self, world: World, callers: trio.Nursery) -> None:
        plan = self._plan
        async with open_constellation(
            [DeviceConfig(device.name, world.fleet.url, max_concurrent_tasks=device.slots) for device in plan.devices],
            connect=world.connect,
            options=ConnectionOptions(
                connect_timeout=OPENING,
                register_timeout=OPENING,
                heartbeat_interval=HEARTBEAT,
                liveness_timeout=LIVENESS,
            ),
            abandon_timeout=_ABANDON,
            max_concurrent_tasks=plan.max_concurrent_tasks,
            max_queued=plan.max_queued,
            keepalive_expiry=plan.keepalive_expiry,
            drain=plan.drain,
            random=Random(f"backoff {plan.seed}"),
        ) as constellation:
            await callers.start(self._write_events, constellation)
            await callers.start(self._lag, constellation)
            async with trio.open_nursery() as steps:
                steps.cancel_scope.deadline = trio.current_time() + (plan.closes_at or _PATIENCE)
                self._faults = steps
                for step in plan.steps:
                    await trio.sleep_until(step.at)
                    match step:
                        case PlannedCall():
                            self._open += 1
                            callers.start_soon(self._call, step, partial(self._make, constellation, step))
                        case PlannedConnection():
                            callers.start_soon(self._run_connection, world, step)
                        case TaskSeries():
                            done = trio.Event()
                            callers.start_soon(self._run_series, world, constellation, step, done)
                            # The plan lasts until all series have ended.
                            steps.start_soon(done.wait)
                        case Disturbance():
                            steps.start_soon(disturb, world, constellation, step, self._broken)
            self._faults = None
            if plan.closes_at is None:
                await self._settle(world, constellation, callers)
            else:
                self._journal.write("world", "closes", "constellation")
        for each in plan.devices:
            check_connections(world, each.name, "the constellation was closed", self._broken)

    async def _write_events(self, constellation: Constellation, *, task_status: trio.TaskStatus[None]) -> None:
        async with constellation.subscribe(1_000_000) as events:
            task_status.started()
            async for event in events:
                self._journal.events.append(event)
                self._journal.write("event", type(event).__name__, getattr(event, "task_id", ""), event)

    async def _lag(self, constellation: Constellation, *, task_status: trio.TaskStatus[None]) -> None:
        async with constellation.subscribe(3) as events:
            task_status.started()
            async for _event in events:
                await trio.sleep(100)

    async def _disturb_later(self, world: World, constellation: Constellation, step: Disturbance) -> None:
        await trio.sleep(step.at)
        await disturb(world, constellation, step, self._broken)

    async def _make(self, constellation: Constellation, call: PlannedCall) -> object:
        device = constellation.devices.get(call.device.name)
        request = request_of(call)
        if call.kind == "constellation":
            return await constellation.run_task(
                request,
                os=call.device.platform,
                capabilities=[call.device.feature],
                priority=call.priority,
                timeout=call.timeout,
                on_cancel=call.on_cancel,
                task_id=call.name,
            )
        if device is None:
            raise NoSuchDevice("it was removed")
        if call.kind == "device":
            return await device.run_task(
                request, priority=call.priority, timeout=call.timeout, on_cancel=call.on_cancel, task_id=call.name
            )
        if call.kind == "information":
            return await device.device_info(timeout=call.timeout)
        async with device.reserve(priority=call.priority) as reservation:
            if call.kind == "hold":
                await trio.sleep(call.seconds)
                return "held"
            return await reservation.run_task(
                request, timeout=call.timeout, on_cancel=call.on_cancel, task_id=call.name
            )

    async def _call(self, call: PlannedCall, make: Callable[[], Awaitable[object]]) -> None:
        journal = self._journal
        journal.write("caller", "calls", call.name)
        end = "nothing"
        try:
            with trio.CancelScope() as scope:
                if call.cancel_after is not None:
                    scope.deadline = trio.current_time() + call.cancel_after
                end = self._describe(call, await make())
            if scope.cancelled_caught:
                end = "cancelled"
        except (GalaxyError, trio.ClosedResourceError) as error:
            end = f"{type(error).__name__}: {error}"
        except trio.Cancelled:
            end = "left"
            raise
        finally:
            journal.write("caller", "ends", call.name, end)
            self._ended(1)

    def _describe(self, call: PlannedCall, result: object) -> str:
        if result == "held":
            return "held"
        if not isinstance(result, TaskResult):
            return "informed"
        if result.status != "completed":
            return f"failed: {result.error}"
        return "completed" if result.result == result_of(call) else f"completed with {str(result.result)[:200]}"

    async def _run_connection(self, world: World, planned: PlannedConnection) -> None:
        self._open += len(planned.calls) + 1
        began = 0
        try:
            async with open_connection(
                world.fleet.url,
                planned.device.name,
                client_name=planned.name,
                stream=await world.fleet.connect(),
                options=ConnectionOptions(
                    connect_timeout=OPENING,
                    register_timeout=OPENING,
                    heartbeat_interval=HEARTBEAT,
                    liveness_timeout=LIVENESS,
                ),
            ) as connection:
                async with trio.open_nursery() as nursery:
                    began_at = trio.current_time()
                    for call in planned.calls:
                        await trio.sleep_until(began_at + call.at)
                        began += 1
                        nursery.start_soon(self._call, call, partial(self._make_on, connection, call))
                if connection.statistics().pending:
                    self._broken.append(f"{planned.name} has requests pending that no caller waits for")
        except (ConnectFailed, OSError) as error:
            self._journal.write("caller", "is not connected", planned.name, error)
        finally:
            self._ended(len(planned.calls) - began + 1)

    async def _run_series(
        self, world: World, constellation: Constellation, series: TaskSeries, done: trio.Event
    ) -> None:
        calls = sum(isinstance(step, PlannedCall) for step in series.steps)
        self._open += calls
        try:
            ended_at = trio.current_time()
            for step in series.steps:
                if isinstance(step, Disturbance):
                    if self._faults is not None and not self._faults.cancel_scope.cancel_called:
                        self._faults.start_soon(self._disturb_later, world, constellation, step)
                    continue
                await trio.sleep_until(ended_at + step.at)
                calls -= 1
                await self._call(step, partial(self._make, constellation, step))
                ended_at = trio.current_time()
        finally:
            self._ended(calls)
            done.set()

    async def _make_on(self, connection: Connection, call: PlannedCall) -> object:
        if call.kind == "information":
            return await connection.device_info(timeout=call.timeout)
        return await connection.run_task(request_of(call), timeout=call.timeout, task_id=call.name)

    def _ended(self, count: int) -> None:
        self._open -= count
        if not self._open:
            self._all_ended.set()
            self._all_ended = trio.Event()

    async def _wait_all_ended(self, when: str) -> None:
        with trio.move_on_after(_PATIENCE):
            while self._open:
                await self._all_ended.wait()
        if self._open:
            self._broken.append(f"{self._open} requests never ended {when}")

    async def _settle(self, world: World, constellation: Constellation, callers: trio.Nursery) -> None:
        """Mend all faults. Then everything must end, and nothing must be left."""
        self._journal.write("world", "mends", "all")
        await world.mend_all()
        for device in constellation.devices.values():
            # Corrupted data may have reached this side as well.
            callers.start_soon(connect_if_any, device.reconnect if self._plan.has("corruption") else device.connect)
        await self._wait_all_ended("although all faults were mended")
        left = "unknown"
        with trio.move_on_after(_PATIENCE):
            while left := left_in(constellation, world):  # noqa: ASYNC110  # there is no single event for it
                await trio.sleep(1)
        if left:
            self._broken.append(f"not everything was released: {left}")
        await trio.testing.wait_all_tasks_blocked()
        published = {
            event.device_id: event.status for event in self._journal.events if isinstance(event, StatusChanged)
        }
        for device in constellation.devices.values():
            if device.status is not published[device.device_id]:
                self._broken.append(
                    f"{device.device_id} is {device.status}, but its last event says {published[device.device_id]}"
                )

    async def _check_server(self, world: World, *, constellations: int) -> None:
        await world.mend_all()
        left = "unknown"
        with trio.move_on_after(_PATIENCE):
            while left := left_on_server(world, constellations):  # noqa: ASYNC110
                await trio.sleep(1)
        if left:
            self._broken.append(f"not everything was released on the server: {left}")
