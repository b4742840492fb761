"""One measurement in a process of its own: what to do comes as JSON in the argument, what came of it goes out as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Protocol, cast

from .meter import Plan, Rate


class Contender(Protocol):
    """What each of the contender_*.py modules has."""

    def measure_rate(self, plan: Plan) -> Rate: ...
    def measure_large_result(self, url: str) -> float: ...


def main() -> None:
    what, name, *arguments = cast("list[str]", json.loads(sys.argv[1]))
    if what == "hold":
        # Each contender's process imports what that contender needs, and nothing of the others.
        from .event_loop import measure_hold  # noqa: PLC0415

        outcome: object = measure_hold(name, arguments[0])
    else:
        contender = cast("Contender", importlib.import_module(f"{__package__}.contender_{name}"))
        if what == "large":
            outcome = contender.measure_large_result(arguments[0])
        else:
            url, peer_pid, in_flight, warm_up, seconds = arguments
            plan = Plan(url, int(peer_pid), int(in_flight), float(warm_up), float(seconds))
            if what == "profile":
                from .sampling import profile  # noqa: PLC0415

                outcome = profile(contender.measure_rate, plan)
            else:
                outcome = contender.measure_rate(plan)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
