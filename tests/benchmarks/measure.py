"""One measurement in a process of its own: what to do comes as JSON in the argument, what came of it goes out as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Protocol, cast

from .meter import Plan, Rate, TaskPlan


class Contender(Protocol):
    """What each of the contender_*.py modules has."""

    def measure_rate(self, plan: Plan) -> Rate: ...
    def measure_large_result(self, url: str) -> float: ...


class TaskContender(Protocol):
    """What those have that run tasks on many devices."""

    def measure_tasks(self, plan: TaskPlan) -> Rate: ...


def _measure(what: str, name: str, arguments: list[str]) -> object:
    if what == "hold":
        # Each contender's process imports what that contender needs, and nothing of the others.
        from .event_loop import measure_hold  # noqa: PLC0415

        return measure_hold(name, *arguments)
    if what == "graph":
        from .graph_measurements import MEASUREMENTS  # noqa: PLC0415

        return MEASUREMENTS[name](*arguments)
    module = importlib.import_module(f"{__package__}.contender_{name}")
    if what == "tasks":
        url, peer_pid, devices, tasks, together = arguments
        return cast("TaskContender", module).measure_tasks(
            TaskPlan(url, int(peer_pid), int(devices), int(tasks), bool(together))
        )
    contender = cast("Contender", module)
    if what == "large":
        return contender.measure_large_result(arguments[0])
    url, peer_pid, in_flight, warm_up, seconds = arguments
    plan = Plan(url, int(peer_pid), int(in_flight), float(warm_up), float(seconds))
    if what == "profile":
        from .sampling import profile  # noqa: PLC0415

        return profile(contender.measure_rate, plan)
    return contender.measure_rate(plan)


def main() -> None:
    what, name, *arguments = cast("list[str]", json.loads(sys.argv[1]))
    print(json.dumps(_measure(what, name, arguments)))


if __name__ == "__main__":
    main()
