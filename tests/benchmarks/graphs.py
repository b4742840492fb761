"""Task graphs: what their scheduling costs, what holds the event loop, and whether anything waits that need not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from .event_loop import Step
from .graph_scheduling import Scheduling
from .graph_steps import Start
from .processes import measure
from .report import Target, at_most, print_table

if TYPE_CHECKING:
    from .effort import Effort


class _Shape(NamedTuple):
    """A graph of layers, each of whose nodes waits for all nodes of the layer before; with one node each, it is a chain."""

    what: str
    layers: int
    width: int


_CHAIN: Final = _Shape("chain of 10,000", 10_000, 1)
_TENS: Final = _Shape("1,000 layers of 10", 1_000, 10)
_SHAPES: Final = (
    _Shape("chain of 100", 100, 1),
    _Shape("chain of 800", 800, 1),
    _CHAIN,
    _Shape("20 layers of 20", 20, 20),
    _Shape("10 layers of 10", 10, 10),
    _Shape("100 layers of 10", 100, 10),
    _TENS,
    _Shape("400 layers of 25", 400, 25),
)
_MANY_TASKS: Final = 1_000
"""More tasks than these take minutes over connections."""
_LARGE: Final = (_Shape("98,910 edges", 990, 10), _Shape("248,150 edges", 398, 25))
"""Two nodes and their edges are added to these."""
_STALLS: Final = {"edit": "200 edits", "hold": "a hold of 20 s", "planner": "a planner that thinks for 20 s"}


def bench_graphs(effort: Effort) -> list[Target]:
    """Task graphs over nothing, over connections in memory, and on a clock that jumps."""
    return [*_bench_scheduling(effort), *_bench_steps(effort), *_bench_delays()]


def _bench_scheduling(effort: Effort) -> list[Target]:
    print("\n## Task graphs: CPU time of scheduling, without `run_task` and over connections in memory\n")
    print(
        "Each round is a run of the whole graph; the best of some. Over connections, the server and its devices are in the same process."
    )
    found: dict[_Shape, float] = {}
    rows: list[list[str]] = []
    for shape in _SHAPES:
        alone = _scheduling(shape, effort.rounds, "nothing")
        found[shape] = 1000 * alone.run / alone.nodes
        connected = _scheduling(shape, 1, "devices") if alone.nodes <= _MANY_TASKS else None
        rows.append(
            [
                shape.what,
                f"{alone.edges:,}",
                f"{1000 * alone.build:.1f}",
                f"{found[shape]:.3f}",
                f"{1e6 * alone.run / alone.edges:.1f}",
                "" if connected is None else f"{1000 * connected.run / connected.nodes:.2f}",
            ]
        )
    print_table(("graph", "edges", "`Graph(…)`, ms", "ms/task", "µs/edge", "over connections, ms/task"), rows)
    return [at_most(f"scheduling, {shape.what}, ms/task", 0.1, found[shape]) for shape in (_CHAIN, _TENS)]


def _scheduling(shape: _Shape, rounds: int, over: str) -> Scheduling:
    taken = measure("graph", "scheduling", shape.layers, shape.width, rounds, over)
    return Scheduling(*cast("tuple[int, int, float, float]", taken))


def _bench_steps(effort: Effort) -> list[Target]:
    targets: list[Target] = []
    for shape in _LARGE:
        nodes = shape.layers * shape.width + 2
        print(f"\n## A task graph of {nodes:,} nodes and {shape.what}\n")
        measured = measure("graph", "edits", shape.layers, shape.width, 2 * effort.rounds)
        starts = [Start(*start) for start in cast("list[tuple[str, float, float]]", measured)]
        print("The time from an edit to the start of the new node; the best of some.")
        print_table(
            ("the edit adds", "ms", "CPU time, ms"),
            ((start.what, f"{start.wall:.2f}", f"{start.cpu:.2f}") for start in starts),
        )
        targets += [at_most(f"an edit's node starts, {start.what}, {shape.what}, ms", 5, start.cpu) for start in starts]
        print("The longest step of the event loop.")
        rows = [measure("graph", "steps", shape.layers, shape.width) for _ in range(effort.holds)]
        print_table(
            ("what", "ms", "CPU time, ms"), ((step.what, f"{step.wall:.1f}", f"{step.cpu:.1f}") for step in _best(rows))
        )
    return targets


def _best(rounds: list[object]) -> list[Step]:
    taken = [[Step(*step) for step in cast("list[tuple[str, float, float]]", steps)] for steps in rounds]
    return [
        Step(same[0].what, min(step.wall for step in same), min(step.cpu for step in same))
        for same in zip(*taken, strict=True)
    ]


def _bench_delays() -> list[Target]:
    print("\n## Task graphs on a clock that jumps, over connections in memory, with tasks of 1 s")
    makespan, real = (
        cast("float", measure("graph", "makespan", clock, plans)) for clock, plans in (("mocked", 20), ("real", 1))
    )
    stalls = {what: cast("float", measure("graph", "stall", disturbance)) for disturbance, what in _STALLS.items()}
    print_table(
        ("what", "measured"),
        (
            ("makespan of 20 plans in NebulaBench's shape, of the longest path's: the longest", f"{makespan:.3f}"),
            ("the same on the real clock, one plan", f"{real:.3f}"),
            *(
                (f"longest delay of an independent node during {what}", f"{delay:g} s")
                for what, delay in stalls.items()
            ),
        ),
    )
    return [
        at_most("makespan, of the longest path's", 1.02, makespan),
        *(at_most(f"delay of an independent node during {what}, s", 0, delay) for what, delay in stalls.items()),
    ]
