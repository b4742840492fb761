"""Finds nodes that wait although they could start: whenever the clock is about to go on."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final
from unittest import mock

import trio
import trio.testing

from galaxy_trio.constellation.systems import is_system
from galaxy_trio.constellation.task import NotSent
from galaxy_trio.constellation.task_runner import TaskRunner
from galaxy_trio.graph import NodeState

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.constellation.slots import Lease
    from galaxy_trio.constellation.task import Task
    from galaxy_trio.graph import Node
    from galaxy_trio.messages import TaskResult
    from tests.simulation.graphs.plan import GraphPlan
    from tests.simulation.graphs.referee import Referee

_CLAIM: Final = 1.0
"""Seconds for which a node may wait for each other one if the graph or a queue has a limit: that may hold its place for so long."""
_SOON: Final = 1e-6


class StallWatch:
    """Looks at the graph whenever all tasks wait and time is about to go on: at the end of each step, in the widest sense.

    A node that is ready, not held and not in its backoff must have a slot then, unless no suitable device has a free one.

    Args:
        plan: The plan of the run.

    Attributes:
        referee: Follows the graph; None while there is none.
        constellation: The devices.
    """

    def __init__(self, plan: GraphPlan) -> None:
        self.referee: Referee | None = None
        self.constellation: Constellation | None = None
        self._most = plan.max_concurrent
        limited = self._most is not None or plan.world.max_queued < len(plan.graph.nodes) + len(plan.actions) * 4
        self._tolerated = _CLAIM if limited else 0.0
        # The nodes that have a slot, before they are sent and afterwards, and those that wait after a connection failed to open.
        self._in_slots: Counter[str] = Counter()
        self._resting: dict[str, float] = {}
        self._stalled: dict[tuple[str, int], float] = {}

    @contextmanager
    def watching(self) -> Generator[None]:
        """Watch during the block."""
        autojump = trio.testing.MockClock._autojump
        attempt = TaskRunner.attempt
        watch = self

        def watched_autojump(clock: trio.testing.MockClock) -> None:
            began = clock.current_time()
            stalled = watch._look(began)
            autojump(clock)
            watch._count(stalled, clock.current_time() - began)

        async def watched_attempt(self: TaskRunner, task: Task, lease: Lease) -> TaskResult:
            node_id = task.request.split("\n", 1)[0].removeprefix("Task Description: ").split(" ", 1)[0]
            watch._in_slots[node_id] += 1
            try:
                return await attempt(self, task, lease)
            except NotSent as not_sent:
                watch._resting[node_id] = trio.current_time() + not_sent.wait
                raise
            finally:
                watch._in_slots[node_id] -= 1

        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(trio.testing.MockClock, "_autojump", watched_autojump))
            stack.enter_context(mock.patch.object(TaskRunner, "attempt", watched_attempt))
            yield

    def _look(self, now: float) -> list[tuple[str, int]]:
        """Return the nodes that could start now."""
        referee = self.referee
        if referee is None or referee.off:
            return []
        try:
            referee.sync()
            return [(node_id, referee.model.nodes[node_id].serial) for node_id in self._could_start(referee, now)]
        except Exception as error:  # noqa: BLE001  # trio would not survive it here
            referee.report(f"the referee raised {error!r}")
            return []

    def _could_start(self, referee: Referee, now: float) -> list[str]:
        model, states = referee.model, referee.model.states.nodes
        taken = sum(
            state is NodeState.RUNNING or (state is NodeState.READY and self._in_slots[node_id] > 0)
            for node_id, state in states.items()
        )
        if self.constellation is None or (self._most is not None and taken >= self._most):
            return []
        devices = [
            device
            for device in self.constellation.devices.values()
            if device._takes_now and device.running < device.config.max_concurrent_tasks
        ]

        def has_device(spec: Node) -> bool:
            return any(
                device.device_id == spec.device
                if spec.device is not None
                else is_system(device.profile.os, spec.os) and spec.capabilities <= set(device.profile.capabilities)
                for device in devices
            )

        return [
            node_id
            for node_id, state in states.items()
            if state is NodeState.READY
            and not model.states.holds[node_id]
            and model.nodes[node_id].not_before <= now + _SOON
            and not self._in_slots[node_id]
            and self._resting.get(node_id, 0.0) <= now + _SOON
            and has_device(model.nodes[node_id].spec)
        ]

    def _count(self, stalled: list[tuple[str, int]], seconds: float) -> None:
        self._stalled = {node: self._stalled.get(node, 0.0) + seconds for node in stalled}
        if self.referee is None:
            return
        ready = list(self.referee.model.states.nodes.values()).count(NodeState.READY)
        for (node_id, _), waited in self._stalled.items():
            if waited > self._tolerated * ready + _SOON:
                self.referee.report(f"{node_id} could have started {waited:g} s ago")
