"""The text of a node's task shows as much of a result as it does of the whole one, although only the beginning is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from galaxy_trio.daemon.store.result_beginnings import MOST_ESCAPED, MOST_LOST, parse_beginning
from galaxy_trio.daemon.store.store import open_store
from galaxy_trio.graph.model import Edge, Graph, Node
from galaxy_trio.graph.node_requests import MAX_INPUTS, make_request
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import NodeState
from tests.daemon.support.stored_graphs import requests_of, run

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.location import Location
    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _common(one: str, other: str) -> int:
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


@given(_values, st.floats(0, 1, exclude_max=True))
@example({"key": {"inner": "value"}}, 0.5)
@example({"": 1000000000.0, "0": None, "00": None}, 0.5)
@example(["\\\\\\", "\u00e9\U0001f600"], 0.9)
def test_beginning_is_parsed_up_to_a_number_at_its_end(value: JSON, part: float) -> None:
    text = json.dumps(value)
    beginning = text[: int(part * len(text))]
    found = json.dumps(parse_beginning(beginning))
    number = beginning[len(beginning.rstrip("0123456789.+-eEtrufalsn")) :]
    # What closes it is left out, and so is an escape that was cut.
    cut = len(beginning) - len(number) - len("\\u0000")
    assert _common(beginning, found) >= cut


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 4))
def test_a_byte_takes_at_most_so_many_bytes_in_ascii(text: str, times: int) -> None:
    value = [text] * times
    assert len(json.dumps(value)) <= MOST_ESCAPED * len(_encoded(value).encode())


def test_a_number_is_not_longer_than_what_may_be_left_out() -> None:
    with pytest.raises(ValueError, match="Exceeds the limit"):
        json.loads("1" * MOST_LOST)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 300_000,
        "\u00e9" * 200_000,
        "\U0001f600" * 100_000,
        ["\u4e2d\\", 1.5, None, True] * 30_000,
        {"k" * 250_000: 1},
        {"key": {"inner": ["\u00e9" * 250_000]}},
        {"short": "value"},
        None,
    ],
    ids=lambda value: f"{json.dumps(value):.20}",
)
async def test_task_has_the_same_text_as_with_the_whole_result(database: Location, value: JSON) -> None:
    nodes = [Node("a", "first"), Node("b", "second", tips=["a tip"])]
    async with open_store(database) as store:
        graph, _ = await store.graphs.add(Graph(nodes, [Edge("a", "b")]))
        await run(store, graph.id, "a", result=json.dumps(value))
        text = (await requests_of(store, graph.id))["b"]
        assert text == make_request(nodes[1], {"a": NodeResult(NodeState.COMPLETED, result=value)})
        assert len(text.encode()) < MAX_INPUTS + 1_000


async def test_of_many_results_those_that_have_room_are_shown(database: Location) -> None:
    names = [f"n{number}" for number in range(70)]
    target = Node("target", "all")
    graph = Graph([*(Node(name, "x") for name in names), target], [Edge(name, "target") for name in names])
    results = {name: ("\u00e9" if number % 2 else "e") * 2_000 for number, name in enumerate(names)}
    async with open_store(database) as store:
        record, _ = await store.graphs.add(graph)
        for name in names:
            await run(store, record.id, name, result=json.dumps(results[name]))
        known = {name: NodeResult(NodeState.COMPLETED, result=results[name]) for name in names}
        assert (await requests_of(store, record.id))["target"] == make_request(target, known)
