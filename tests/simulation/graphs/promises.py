"""The promises of graphs that what the devices received must keep."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.simulation.graphs.plan import GraphPlan
    from tests.simulation.graphs.referee import End, Sources, Start
    from tests.simulation.graphs.world import GraphWorld
    from tests.simulation.journal import Journal

_SOON: Final = 0.01
_RESULTS: Final = "\nResults of the tasks before it:\n"


def broken_promises_of_graph(
    plan: GraphPlan, world: GraphWorld, journal: Journal, starts: Mapping[str, Start], ends: list[End]
) -> Iterator[str]:
    """Describe the broken promises: each attempt was sent once, to its device, with what was known, and stopped when it should be."""
    for task_id, count in Counter(received.task_id for received in world.received).items():
        if count > 1:
            yield f"{task_id} was sent {count} times"
    for task_id, count in world.begun.items():
        if count > 1:
            yield f"a device began {task_id} {count} times"
    for received in world.received:
        start = starts.get(received.task_id)
        if start is None:
            yield f"{received.task_id} was sent, and no event says so: {received.request}"
        elif (received.request, received.device) != (start.request, start.device):
            yield f"{start.device} should have received {start.request!r}, and {received.device} received {received.request!r}"
        elif _results_in(received.text) != start.sources:
            yield f"{start.node_id} was sent with {_results_in(received.text)} instead of {start.sources}"
    yield from _of_stops(plan, journal, ends)


def _results_in(text: str) -> Sources:
    lines = [json.loads(line) for line in text.partition(_RESULTS)[2].splitlines()]
    return {line["task"]: (line["state"], line["result"], line["error"]) for line in lines}


def _of_stops(plan: GraphPlan, journal: Journal, ends: list[End]) -> Iterator[str]:
    """A task that was cancelled or took too long is stopped on its device after the latency of the network."""
    conditions = plan.world.conditions
    carriage = 6 * (conditions.latency + conditions.jitter) + 2e6 / conditions.bandwidth + _SOON
    trouble_at = min((entry.at for entry in journal.of("world", "disturbs")), default=math.inf)
    ended_at = {entry.name: entry.at for entry in journal.of("device", "ends")}
    for end in ends:
        late = ended_at.get(end.task_id, 0.0)
        if end.stopped and end.at + carriage < min(late, trouble_at):
            yield f"{end.task_id} was stopped at {end.at}, and its device went on until {late}"
