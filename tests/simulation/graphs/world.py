"""The world of a graph: its devices do what the first line of a task's text says, and count how often."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from galaxy_trio.messages import Command, ResultStatus, ToolType
from tests.simulation.world import World

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON
    from galaxy_trio.server import ServerTask
    from tests.simulation.journal import Journal
    from tests.simulation.plan import Plan


@attrs.frozen
class Received:
    """A task that the server received."""

    task_id: str
    device: str
    text: str

    @property
    def request(self) -> str:
        """The node's request."""
        return self.text.split("\n", 1)[0].removeprefix("Task Description: ")


class GraphWorld(World):
    """Everything but the constellation and the graph.

    Attributes:
        received: The tasks that the server received, in order.
        begun: The number of times that a device began each task.
        results: The results that devices returned, by task.
        failures: The tasks that devices reported as failed.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        super().__init__(plan, journal)
        self.received: list[Received] = []
        self.begun: Counter[str] = Counter()
        self.results: dict[str, JSON] = {}
        self.failures: set[str] = set()
        self._runs: Counter[str] = Counter()

    async def _session(self, task: ServerTask) -> object:
        task_id = task.session_id.partition("@")[2]
        received = Received(task_id, task.device_id, task.request)
        self.received.append(received)
        self.journal.write("server", "begins", task_id, f"{task.device_id}: {received.request}")
        end = "cancelled"
        try:
            command = Command("work", ToolType.ACTION, {"request": f"{task_id} {received.request}"})
            [result] = await task.execute([command], timeout=100)
            end = f"has {result.status}"
            if result.status is not ResultStatus.SUCCESS:
                raise RuntimeError(result.error)
        except Exception as error:
            self.failures.add(task_id)
            end = f"failed: {type(error).__name__}"
            raise
        else:
            self.results[task_id] = result.result
            return result.result
        finally:
            self.journal.write("server", "ends", task_id, end)

    async def _work(self, device: str, request: str) -> dict[str, JSON]:
        task_id, node_id, seconds, value, failures = request.split(" ")
        self.begun[task_id] += 1
        self._runs[node_id] += 1
        run = self._runs[node_id]
        self.journal.write("device", "begins", task_id, device)
        self.working[task_id] = self.working.get(task_id, 0) + 1
        end = "cancelled"
        try:
            await trio.sleep(float(seconds))
            end = "failed" if run <= int(failures) else "done"
            if run <= int(failures):
                raise RuntimeError("as requested")
        finally:
            self.working[task_id] -= 1
            self.journal.write("device", "ends", task_id, end)
        # The number tells the result of this run from those of others.
        return {"node": node_id, "value": int(value), "run": run}
