"""Any edits of a graph, most of which are accepted, made both of the graph and of its model."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import pytest
from hypothesis import strategies as st

from galaxy_trio.errors import GraphError
from galaxy_trio.graph.model import Edge, Node, When
from galaxy_trio.graph.state_machine import NodeState

from .naive_edits import AnyCondition, EditableGraph, RefusedAs
from .naive_graph import ENDED, UNSTARTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.graph import GraphEdit

    MakeNode = Callable[["Draw", str], Node]

T = TypeVar("T")

Change: TypeAlias = "tuple[str, tuple[object, ...]]"
"""A method of `GraphEdit`, and its arguments."""
Plan: TypeAlias = "list[tuple[str, tuple[object, ...], type[GraphError] | None]]"
"""Changes, each with the error with which it is refused."""


class Draw(Protocol):
    """Draws a value."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T:
        """Draw a value."""
        ...


NAMES: Final = tuple(f"n{number}" for number in range(8))
_KINDS: Final = ("add", "connect", "connect", "connect", "replace", "remove", "disconnect")
_names: Final = st.sampled_from(NAMES)
_whens: Final = st.sampled_from(list(When))
_sizes: Final = st.sampled_from([0, 0, 5, 50])


def result_of(name: str) -> str:
    """Return the result with which a node completes."""
    return f"the result of {name}"


def make_edge(
    source: str, target: str, when: When, met: bool | None = None, *, name: str | None = None, size: int = 0
) -> Edge:
    """Make an edge, perhaps with a condition, an id, and metadata of some size."""
    condition = AnyCondition(met, result_of(source)) if when is When.CONDITION else None
    return Edge(source, target, when, condition=condition, id=name, metadata={"": "x" * size} if size else {})


@st.composite
def first_changes(draw: st.DrawFn, make_node: MakeNode) -> list[Change]:
    """Draw the changes that make a first graph, without the last two names."""
    names = NAMES[:-2]
    pairs = st.sampled_from([(source, target) for source in names for target in names if source < target])
    edges = draw(st.lists(st.tuples(pairs, _whens, st.booleans()), min_size=3, max_size=10))
    return [
        *[("add", (make_node(draw, name),)) for name in names],
        *[("connect", (make_edge(*pair, when, met),)) for pair, when, met in edges],
    ]


def draw_changes(draw: Draw, make_node: MakeNode) -> Callable[[EditableGraph], Change | None]:
    """Return a function that draws the next change for a graph as it is then, until it returns None."""
    left, recent = draw(st.integers(1, 6)), list[str]()

    def draw_next(graph: EditableGraph) -> Change | None:
        nonlocal left
        left -= 1
        return None if left < 0 else _draw_change(draw, make_node, graph, recent)

    return draw_next


def _draw_change(draw: Draw, make_node: MakeNode, graph: EditableGraph, recent: list[str]) -> Change:
    """Draw a change, often of what the edit has changed already, which is then in `recent`."""
    there = list(graph.nodes)
    unstarted = [name for name in there if graph.states.nodes[name] in UNSTARTED]
    pools = [each for each in (recent, unstarted, unstarted) if each]
    target = draw(st.sampled_from(draw(st.sampled_from([*pools, NAMES]))))
    recent.append(target)
    match draw(st.sampled_from(_KINDS)):
        case "add":
            name = draw(st.sampled_from([name for name in NAMES if name not in there] or NAMES))
            recent.append(name)
            after = draw(st.none() | _names | st.lists(st.sampled_from(there or NAMES), max_size=2))
            return "add", (make_node(draw, name), *(() if after is None else (after,)))
        case "replace":
            return "replace", (make_node(draw, target),)
        case "remove":
            return "remove", (target,)
        case "disconnect":
            edges = [*graph.edges.values(), *graph.edges_before.values()]
            pairs = [(edge.source, edge.target) for edge in edges if edge.target in (target, *unstarted)]
            pair = draw(st.sampled_from(pairs) if pairs else st.tuples(_names, _names))
            recent += pair
            return "disconnect", pair
        case _:
            # Mostly from an earlier to a later name, so that few edges form a cycle.
            earlier = [name for name in there if name < target]
            ended = [name for name in there if graph.states.nodes[name] in ENDED]
            pools = [each for each in (earlier, earlier, earlier, ended, ended, recent) if each]
            source = draw(st.sampled_from(draw(st.sampled_from([*pools, NAMES]))))
            recent.append(source)
            return "connect", (_draw_edge(draw, graph, source, target),)


def _draw_edge(draw: Draw, graph: EditableGraph, source: str, target: str) -> Edge:
    made_up = [f"edge-{len(graph.edges) + number}" for number in (1, 2, 3)]
    name = draw(st.sampled_from([None, None, "1", draw(st.sampled_from([*graph.edges_before, *made_up]))]))
    is_completed = graph.states.nodes.get(source) is NodeState.COMPLETED
    when = draw(_whens | st.just(When.CONDITION) if is_completed else _whens)
    # One that raises is asked immediately, so that its edge does not stay.
    is_asked = is_completed and not graph.states.holds[source]
    met = draw(st.sampled_from([True, False, None] if is_asked else [True, False]))
    return make_edge(source, target, when, met, name=name, size=draw(_sizes))


def plan_changes(graph: EditableGraph, draw: Callable[[EditableGraph], Change | None]) -> tuple[EditableGraph, Plan]:
    """Make changes of a copy of the model. Returns it, and the changes with the errors of those that are to be refused."""
    plan: Plan = []
    edited = graph.copy()
    while (change := draw(edited)) is not None:
        tried = edited.copy()
        try:
            getattr(tried, change[0])(*change[1])
        except RefusedAs as refused:
            plan.append((*change, refused.error))
        else:
            plan.append((*change, None))
            edited = tried
    return edited, plan


def make_changes(edit: GraphEdit, plan: Plan) -> None:
    """Make planned changes of an edit. If one is refused, the edit goes on without it."""
    for method, arguments, error in plan:
        with nullcontext() if error is None else pytest.raises(GraphError) as caught:
            getattr(edit, method)(*arguments)
        assert caught is None or caught.type is error, caught
