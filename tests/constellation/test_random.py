"""Any sequence of tasks, cancellations, departures and returns: each task ends once with a correct outcome, and nothing is left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxy_trio import ConnectionLost, QueueFull, RequestTimeout
from galaxy_trio.constellation.task import OnCancel
from galaxy_trio.events import DeviceStatus, TaskEnded
from galaxy_trio.messages import TaskResult, TaskStatus
from tests.constellation.support.calls import Call, World, open_world
from tests.constellation.support.fleet import device_config, recording

if TYPE_CHECKING:
    from galaxy_trio.constellation.device import Device

pytestmark = pytest.mark.slow

SLOTS = {"a": 1, "b": 2, "c": 1}
ALL_TOGETHER = 3


@attrs.define(eq=False)
class Submitted:
    """A task and the call that runs it."""

    name: str
    on_cancel: OnCancel
    cancelled: bool = False
    call: Call = attrs.field(factory=Call)


class Script:
    """The steps of a run, carried out on a fleet."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self._world = world
        self._nursery = nursery
        self.submitted: list[Submitted] = []
        self._present = set(SLOTS)

    @property
    def _devices(self) -> list[Device]:
        return list(self._world.constellation.devices.values())

    async def submit(self, number: int) -> None:
        """Submit a task in one of all ways."""
        on_cancel: OnCancel = "abandon" if number % 3 == 0 else "stop"
        name = str(len(self.submitted))
        task = Submitted(name, on_cancel)
        self.submitted.append(task)
        word = ("echo", "hold", "fail", "hold")[number % 4]
        request = f"{word} {name}"
        arguments: dict[str, object] = {"on_cancel": on_cancel, "task_id": name, "timeout": 5_000}
        device = self._devices[number % len(self._devices)]
        match number % 5:
            case 0:
                call = partial(device.run_task, request, **arguments)  # type: ignore[arg-type]
            case 1:
                call = partial(self._reserve, request, arguments)
            case _:
                call = partial(self._world.constellation.run_task, request, **arguments)  # type: ignore[arg-type]
        self._nursery.start_soon(task.call.run, call)

    async def _reserve(self, request: str, arguments: dict[str, object]) -> TaskResult:
        async with self._world.constellation.reserve(os="linux") as reservation:
            await trio.sleep(1)
            return await reservation.run_task(request, **arguments)  # type: ignore[arg-type]

    async def cancel(self, number: int) -> None:
        """Cancel one of the calls."""
        if self.submitted:
            task = self.submitted[number % len(self.submitted)]
            task.cancelled = True
            task.call.scope.cancel()

    async def release(self, number: int) -> None:
        """Let a task that holds end, now or as soon as it begins."""
        self._world.fleet.work.release(str(number))

    async def depart(self, number: int) -> None:
        """Disconnect a device from the server."""
        name = sorted(SLOTS)[number % 3]
        if name in self._present:
            self._present.discard(name)
            await self._world.fleet.remove_device(name)

    async def come_back(self, number: int) -> None:
        """Connect a device to the server again."""
        name = sorted(SLOTS)[number % 3]
        if name not in self._present:
            self._present.add(name)
            await self._world.fleet.add_device(name)

    async def break_connection(self, number: int) -> None:
        """Reset any connection, shared or of a task."""
        alive = [stream for stream in self._world.streams if not stream.closed]
        if alive:
            alive[number % len(alive)].reset()

    async def disconnect(self, number: int) -> None:
        """Disconnect a device. Another step may connect it before that has returned."""
        with trio.move_on_after(10):
            await self._devices[number % 3].disconnect()

    async def reconnect(self, number: int) -> None:
        """Reconnect a device, without waiting."""
        self._nursery.start_soon(self._devices[number % 3].reconnect)

    async def wait(self, number: int) -> None:
        """Let some time pass."""
        await trio.sleep(number * 0.5)

    async def settle(self, _number: int) -> None:
        """Wait until all tasks are blocked."""
        await trio.testing.wait_all_tasks_blocked()

    async def come_to_an_end(self) -> None:
        """Connect all devices, and let all tasks end."""
        for number in range(3):
            await self.come_back(number)
        for device in self._devices:
            self._nursery.start_soon(device.connect)
        self._world.fleet.work.release(*(each.name for each in self.submitted))
        for each in self.submitted:
            await each.call.ended.wait()


Step: TypeAlias = tuple[str, int]
_STEPS = st.tuples(
    st.sampled_from(
        ["submit"] * 6
        + ["cancel", "cancel", "release", "release", "release", "depart", "come_back", "come_back"]
        + ["break_connection", "disconnect", "reconnect", "wait", "wait", "settle"]
    ),
    st.integers(0, 20),
)


async def _follow(steps: list[Step]) -> None:
    configs = [device_config(name, max_concurrent_tasks=slots) for name, slots in SLOTS.items()]
    async with open_world(*configs, max_concurrent_tasks=ALL_TOGETHER, max_queued=5) as world:
        async with recording(world.constellation) as journal:
            async with trio.open_nursery() as nursery:
                script = Script(world, nursery)
                for name, number in steps:
                    await getattr(script, name)(number)
                    assert sum(device.running for device in world.constellation.devices.values()) <= sum(SLOTS.values())
                await script.come_to_an_end()
                nursery.cancel_scope.deadline = trio.current_time() + 1_000
            # Abandoned tasks, and connections whose end the server has not noticed, end within this time.
            await trio.sleep(1_000)
            await world.constellation.wait_connected()
            await trio.testing.wait_all_tasks_blocked()
        _check(world, script.submitted)
        ended_tasks = [event.task_id for event in journal.events if isinstance(event, TaskEnded)]
        assert len(ended_tasks) == len(set(ended_tasks))


def _check(world: World, submitted: list[Submitted]) -> None:
    world.nothing_is_held()
    assert {device.status for device in world.constellation.devices.values()} == {DeviceStatus.IDLE}
    work = world.fleet.work
    assert len(work.begun) == len(set(work.begun))
    for name, most in work.most.items():
        assert most <= SLOTS[name]
    ended = {request.partition(" ")[2] for request in work.ended}
    for each in submitted:
        ending = each.call.ending
        if each.call.cancelled:
            assert each.cancelled
        elif isinstance(ending, TaskResult):
            # It failed on purpose, or because its device or connection was lost.
            assert ending.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)
            assert (each.name in ended) is (ending.status is TaskStatus.COMPLETED)
        else:
            assert isinstance(ending, ConnectionLost | QueueFull | RequestTimeout), ending


@settings(max_examples=60)
@given(steps=st.lists(_STEPS, max_size=40))
def test_each_task_ends_once_with_a_correct_outcome_and_nothing_is_left(steps: list[Step]) -> None:
    trio.run(_follow, steps, clock=trio.testing.MockClock(autojump_threshold=0))
