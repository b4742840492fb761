"""The users of a simulated cluster: clients that submit tasks, and observers that follow the events."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.daemon.support.graph_promises import GraphEvents
from tests.simulation.cluster.process import Unanswered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.cluster.plan import PlannedTask
    from tests.simulation.cluster.world import ClusterWorld

ENDED: Final = ("completed", "failed", "cancelled", "lost")
_CANCEL_LIMIT: Final = 60.0
"""Seconds from the request to cancel a task until it has ended, whatever happens."""


class Clients:
    """The clients of a cluster.

    Attributes:
        ids: The id of each accepted task, by its name.
        ends: The state in which a client saw that a task had ended, by its name.
        asked_to_cancel: The names of the tasks that a client has asked to cancel.
    """

    def __init__(self, world: ClusterWorld) -> None:
        self._world = world
        self.ids: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self.asked_to_cancel: set[str] = set()

    async def be_client(self, number: int, tasks: Sequence[PlannedTask]) -> None:
        """Submit tasks one after the other, and see each of them end."""
        random = Random(f"client {number} {self._world.plan.seed}")
        async with trio.open_nursery() as nursery:
            for task in tasks:
                await trio.sleep(task.pause)
                await self._submit(random, task)
                nursery.start_soon(self._see_end, random, task)
                if task.cancel_after is not None:
                    nursery.start_soon(self._cancel, random, task)

    async def _submit(self, random: Random, task: PlannedTask) -> None:
        """Submit a task until it is accepted, sometimes twice at the same time."""
        body: dict[str, object] = {
            "request": f"{task.name} {task.seconds:.3f} {int(task.fails)}",
            "idempotency_key": task.name,
            "priority": task.priority,
            **({} if task.device is None else {"device": task.device}),
            **({} if task.os is None else {"os": task.os}),
        }
        async with trio.open_nursery() as nursery:
            for _ in range(random.choice([1, 1, 1, 2])):
                nursery.start_soon(self._submit_once, random, task.name, body)

    async def _submit_once(self, random: Random, name: str, body: dict[str, object]) -> None:
        answer = await self._world.ask(random, "POST", "/tasks", body)
        if answer.status not in (200, 202):
            self._world.broken.append(f"{name} was refused: {answer}")
        elif self.ids.setdefault(name, answer.body["id"]) != answer.body["id"]:
            self._world.broken.append(f"{name} was accepted twice")

    async def _see_end(self, random: Random, task: PlannedTask) -> None:
        if task.name not in self.ids:
            return
        while True:
            answer = await self._world.ask(random, "GET", f"/tasks/{self.ids[task.name]}?wait=10")
            if answer.status != 200:
                self._world.broken.append(f"{task.name} is missing: {answer}")
                return
            if answer.body["state"] in ENDED:
                self._saw_end(task.name, answer.body["state"])
                return

    def _saw_end(self, name: str, state: str) -> None:
        if self.ends.setdefault(name, state) != state:
            self._world.broken.append(f"{name} ended twice: {self.ends[name]}, then {state}")

    async def _cancel(self, random: Random, task: PlannedTask) -> None:
        await trio.sleep(task.cancel_after or 0)
        self.asked_to_cancel.add(task.name)
        with trio.move_on_after(_CANCEL_LIMIT) as limit:
            answer = await self._world.ask(random, "DELETE", f"/tasks/{self.ids[task.name]}")
            while answer.status == 202:
                answer = await self._world.ask(random, "DELETE", f"/tasks/{self.ids[task.name]}")
            if answer.status != 200 or answer.body["state"] not in ENDED:
                self._world.broken.append(f"{task.name} was not cancelled: {answer}")
                return
            self._saw_end(task.name, answer.body["state"])
        if limit.cancelled_caught:
            self._world.broken.append(f"{task.name} did not end within {_CANCEL_LIMIT} s of its cancellation")


class Observer:
    """Follows the events at one daemon after the other, and misses none.

    Attributes:
        last_id: The id of the last event.
        states: The states of each task, by its id, in the order of the events.
        graphs: What the events say of graphs.
    """

    def __init__(self, world: ClusterWorld, number: int) -> None:
        self._world = world
        self._random = Random(f"observer {number} {world.plan.seed}")
        self.last_id = 0
        self.states: dict[str, list[str]] = defaultdict(list)
        self.graphs = GraphEvents()

    async def follow(self) -> None:
        """Follow the events until this is cancelled."""
        while True:
            process = self._world.any_process(self._random)
            if process is not None:
                with trio.move_on_after(self._random.uniform(0, 10)):
                    with suppress(Unanswered):
                        await process.follow(self.last_id, self._on_event)
            await trio.sleep(self._random.uniform(0, 0.5))

    def _on_event(self, number: int, kind: str, data: dict[str, Any]) -> None:
        if kind == "reset" or number <= self.last_id:
            self._world.broken.append(f"an observer got {kind} {number} after {self.last_id}")
        self.last_id = number
        self.graphs.take(kind, data)
        if kind == "task":
            self.states[data["id"]].append(data["state"])
