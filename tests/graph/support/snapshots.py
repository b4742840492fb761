"""Strategies for snapshots of graphs, and for JSON."""

from __future__ import annotations

import math
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from galaxy_trio.graph import Condition, Edge, Graph, GraphSnapshot, Node, NodeResult, NodeState, When
from galaxy_trio.graph.state_machine import ENDED, UNSTARTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from galaxy_trio.graph import Comparison
    from galaxy_trio.messages import JSON

_ODD: Final = (
    "",
    "a",
    "null",
    "no",
    "1",
    "<<",
    "=",
    "~",
    "2026-01-01",
    "a.b",
    "x y",
    "[",
    "{",
    "\n",
    "é",
    "\U0001f600",
    "- a: b",
)
_TESTS: Final[tuple[Comparison, ...]] = ("eq", "ne", "lt", "le", "gt", "ge", "exists", "truthy")
_CHARACTERS: Final = st.characters(codec="utf-8")
_RESERVED: Final = ("original", "galaxy_trio")

texts = st.text(_CHARACTERS, max_size=8) | st.sampled_from(_ODD)
names = texts.filter(bool)


def json_values(*, null: bool = True) -> st.SearchStrategy[JSON]:
    """Make any JSON, perhaps without null, which TOML does not have."""
    numbers: st.SearchStrategy[JSON] = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
    leaves: st.SearchStrategy[JSON] = st.booleans() | numbers | texts
    return st.recursive(
        leaves | st.none() if null else leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=4,
    )


def _metadata(values: st.SearchStrategy[JSON]) -> st.SearchStrategy[Mapping[str, JSON]]:
    return st.dictionaries(texts.filter(lambda key: key not in _RESERVED), values, max_size=2)


def _optional(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    return st.none() | strategy


_times = st.none() | st.datetimes(
    timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
)
_timeouts = st.sampled_from([1000.0, math.inf, 0, 7, 315_360_000.0, 0.5]) | st.floats(0, allow_nan=False)


@st.composite
def _nodes(draw: st.DrawFn, node_id: str, values: st.SearchStrategy[JSON]) -> Node:
    device = draw(_optional(names))
    systems = _optional(st.sampled_from(["windows", "macos", "Mac OS X", "darwin", "freebsd"]) | names)
    capabilities = st.frozensets(st.sampled_from(["web", "api", "browser"]) | names, max_size=3)
    return Node(
        node_id,
        draw(texts),
        device=device,
        os=None if device is not None else draw(systems),
        capabilities=() if device is not None else draw(capabilities),
        priority=draw(st.sampled_from([-50, 0, 50, 100]) | st.integers(-100, 100)),
        timeout=draw(_timeouts),
        retries=draw(st.integers(0, 1000)),
        backoff=draw(st.just(1.0) | st.floats(0, 1e9)),
        retry_lost=draw(st.booleans()),
        name=draw(_optional(names)),
        tips=draw(st.lists(texts, max_size=2)),
        metadata=draw(_metadata(values)),
    )


@st.composite
def _conditions(draw: st.DrawFn, values: st.SearchStrategy[JSON]) -> Condition:
    test = draw(st.sampled_from(_TESTS))
    at = draw(st.sampled_from(["", "/exit_code", "/a~1b/0", "/"]))
    if draw(st.booleans()):
        return Condition(at, "in", draw(st.lists(values, max_size=2)))
    return Condition(at, test, draw(values) if draw(st.booleans()) else None)


@st.composite
def _edges(draw: st.DrawFn, ids: list[str], edge_id: str | None, values: st.SearchStrategy[JSON]) -> Edge:
    source = draw(st.integers(0, len(ids) - 2))
    target = draw(st.integers(source + 1, len(ids) - 1))
    when = draw(st.sampled_from(When))
    condition = draw(_conditions(values)) if when is When.CONDITION else None
    return Edge(ids[source], ids[target], when, condition=condition, id=edge_id, metadata=draw(_metadata(values)))


@st.composite
def _results(draw: st.DrawFn, values: st.SearchStrategy[JSON]) -> NodeResult:
    return NodeResult(
        draw(st.sampled_from(NodeState)),
        draw(st.integers(0, 5)),
        draw(values | st.none()),
        draw(_optional(names)),
        draw(_optional(texts)),
        draw(_optional(texts)),
        draw(_times),
        draw(_times),
    )


@st.composite
def snapshots(draw: st.DrawFn, *, null: bool = True) -> GraphSnapshot:
    """Make a snapshot of a graph that may have run."""
    values = json_values(null=null)
    ids = draw(st.lists(names, max_size=4, unique=True))
    edge_ids = draw(st.lists(_optional(names), max_size=5, unique_by=lambda edge_id: edge_id or object()))
    edges = [draw(_edges(ids, edge_id, values)) for edge_id in edge_ids] if len(ids) > 1 else []
    graph = Graph(
        [draw(_nodes(node_id, values)) for node_id in ids],
        edges,
        name=draw(_optional(names)),
        metadata=draw(_metadata(values)),
    )
    nodes = {node_id: draw(_results(values)) for node_id in ids if draw(st.booleans())}
    decisions: dict[str, bool] = {}
    for edge in graph.edges:
        source, known = (nodes.get(end, NodeResult()) for end in (edge.source, edge.target))
        target = known.state
        may_be_decided = source.state in ENDED or target not in UNSTARTED | {NodeState.SKIPPED} or known.attempt > 0
        if edge.id is not None and may_be_decided and draw(st.booleans()):
            decisions[edge.id] = target in UNSTARTED or draw(st.booleans())
    return GraphSnapshot(graph, draw(st.integers(0, 10)), nodes, decisions)
