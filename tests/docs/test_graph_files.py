"""The reference of graphs' files has the keys and defaults of the code."""

from __future__ import annotations

import json
import re
from enum import StrEnum

import attrs
import pytest

from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio.daemon import graph_limits
from galaxy_trio.daemon.store.graph_snapshots import MAX_RESULTS
from galaxy_trio.daemon.task_limits import MAX_CAPABILITIES, MAX_CAPABILITIES_SIZE, MAX_NAME, MAX_TIMEOUT
from galaxy_trio.daemon.web.security import MAX_GRAPH_BODY
from galaxy_trio.errors import GraphFileError
from galaxy_trio.graph import (
    Condition,
    Edge,
    Graph,
    GraphSnapshot,
    Node,
    NodeResult,
    NodeState,
    When,
    graph_document,
    read_graph,
)
from galaxy_trio.graph.conditions import _KINDS
from galaxy_trio.graph.files.edit_reader import MAX_CHANGES
from galaxy_trio.graph.files.json_values import MAX_DEPTH, MAX_DIGITS, MAX_VALUES
from galaxy_trio.graph.files.original_reader import CONSTELLATION_KEYS, DEPENDENCY_KEYS
from galaxy_trio.graph.files.original_task import KEYS
from galaxy_trio.graph.files.original_words import DEVICE_TYPES, PRIORITIES, STATES, WHENS
from galaxy_trio.graph.files.texts import MAX_SIZES
from galaxy_trio.graph.model import MAX_EDGES, MAX_NODE_ID, MAX_NODES, MAX_REQUEST, MAX_RETRIES, MAX_SIZE
from tests.support.paths import DOCS

PAGE = (DOCS / "reference" / "graph-files.md").read_text("utf-8")


def _section(title: str) -> str:
    return PAGE.partition(f"# {title}\n")[2].partition("\n#")[0]


def _table(title: str) -> dict[str, tuple[str, str]]:
    """Return the meaning and the default of each key."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", _section(title), re.MULTILINE)
    return {key: (meaning, default) for key, meaning, default in rows}


def _keys(path: str) -> list[str]:
    """Return the keys that the reader accepts at a path, from its error about an unknown one."""
    wrong = '"???": 1'
    edge = f'{{"source": "a", "target": "a", "when": "condition", "condition": {{{wrong}}}, {wrong}}}'
    with pytest.raises(GraphFileError) as caught:
        read_graph(f'{{"nodes": [{{{wrong}}}], "edges": [{edge}], "results": {{"a": {{{wrong}}}}}, {wrong}}}')
    shown = f"{path}['???']" if path else "'???'"
    [known] = [
        keys
        for place, _, keys in (problem.partition(": unknown key; known are ") for problem in caught.value.problems)
        if place == shown
    ]
    return known.split(", ")


@pytest.mark.parametrize(
    ("title", "path"),
    [
        ("The document", ""),
        ("A node", "nodes[0]"),
        ("An edge", "edges[0]"),
        ("A condition", "edges[0].condition"),
        ("A result", "results.a"),
    ],
)
def test_exactly_the_keys_that_are_read_are_documented(title: str, path: str) -> None:
    assert sorted(_table(title)) == sorted(_keys(path))


@pytest.mark.parametrize(
    ("title", "made"),
    [
        ("A node", Node("a", "x")),
        ("An edge", Edge("a", "b")),
        ("A result", NodeResult()),
        ("A condition", Condition("", "eq")),
        ("The document", Graph()),
        ("The document", GraphSnapshot(Graph())),
    ],
)
def test_documented_defaults_are_those_of_the_code(title: str, made: attrs.AttrsInstance) -> None:
    # The reader's names of some attributes.
    table = {{"is": "test"}.get(key, key): default for key, (_, default) in _table(title).items()}
    for field in attrs.fields(type(made)):
        if field.name in table:
            is_required = field.default is attrs.NOTHING or field.name == "nodes"
            assert table[field.name] in (["required"] if is_required else _defaults(getattr(made, field.name)))


def _defaults(value: object) -> list[str]:
    """Return the ways in which the reference shows a default."""
    if value is None:
        return ["\N{EN DASH}", "null", "any", "the one that fits best", "made up when the graph runs"]
    if isinstance(value, StrEnum):
        return [f"`{value}`"]
    if isinstance(value, bool):
        return [json.dumps(value)]
    return [f"{value:g}"] if isinstance(value, int | float) else ["none"] if not value else []


def test_documented_words_and_limits_are_those_of_the_code() -> None:
    node, edge, result = _table("A node"), _table("An edge"), _table("A result")
    assert re.findall(r"`(\w+)`", edge["when"][0]) == [when.value for when in When]
    assert re.findall(r"`(\w+)`", result["state"][0]) == [state.value for state in NodeState]
    assert re.findall(r"`(\w+)`", _table("A condition")["is"][0].partition(";")[0]) == list(_KINDS)
    assert f"of 1 to {MAX_NODE_ID} characters" in node["id"][0]
    assert f"of 1 to {MAX_NODE_ID} characters" in edge["id"][0]
    assert f"-{MAX_PRIORITY} to {MAX_PRIORITY};" in node["priority"][0]
    assert f"up to {MAX_RETRIES:,}" in node["retries"][0]
    limits = dict(re.findall(r"^\| (.*) \| (.*) \|$", _section("Limits"), re.MULTILINE))
    assert limits["nodes, edges"] == f"{MAX_NODES:,} and {MAX_EDGES:,}"
    assert limits["a request"] == f"{MAX_REQUEST:,} characters"
    assert limits["requests, tips, metadata and conditions together"] == f"{MAX_SIZE // 2**20} MiB of memory"
    assert limits["a JSON document"] == f"{MAX_SIZES['.json'] // 2**20} MiB"
    assert {MAX_SIZES[".yaml"], MAX_SIZES[".yml"], MAX_SIZES[".toml"]} == {16 * 2**20}
    assert limits["a YAML or TOML document"].startswith("16 MiB;")
    assert limits["values and keys of a document"] == f"{MAX_VALUES:,}"
    assert limits["lists and objects inside of each other"] == str(MAX_DEPTH)
    assert limits["a whole number"] == f"{MAX_DIGITS} digits"


def test_documented_limits_of_a_daemon_are_those_of_the_code() -> None:
    limits = dict(re.findall(r"^\| (.*) \| (.*) \|$", _section("Limits in a daemon"), re.MULTILINE))
    assert limits["the body of a request"] == f"{MAX_GRAPH_BODY // 2**20} MiB"
    assert limits["edges"] == f"{graph_limits.MAX_EDGES:,}"
    assert (
        limits["requests, tips, metadata and conditions together"] == f"{graph_limits.MAX_SIZE // 2**20} MiB of memory"
    )
    assert limits["changes of an edit"] == f"{MAX_CHANGES:,}"
    capabilities = f"{MAX_CAPABILITIES}, with {MAX_NAME} characters each and {MAX_CAPABILITIES_SIZE:,} together"
    assert limits["capabilities of a node"] == capabilities
    assert limits["`device` and `os`"] == f"{MAX_NAME} characters each"
    different = limits["different combinations of `os` and `capabilities` in a graph"]
    assert different == str(graph_limits.MAX_REQUIREMENTS)
    assert limits["different devices that the nodes of a graph name"] == f"{graph_limits.MAX_DEVICES:,}"
    assert limits["`timeout`"].startswith(f"{MAX_TIMEOUT / 86_400:.0f} days;")
    assert limits["results in a file from `GET /graphs/ID?format=…`"] == f"{MAX_RESULTS // 2**20} MiB together"


def test_every_word_of_the_original_is_documented() -> None:
    section = _section("The original's form")
    words = {*KEYS, *CONSTELLATION_KEYS, *DEPENDENCY_KEYS} - {"tasks"} | {*STATES, *WHENS, *DEVICE_TYPES}
    assert {word for word in words if f"`{word}`" not in section} == set()
    numbers = [f"{number} `{name.upper()}`" for number, name in enumerate(PRIORITIES, 1)]
    assert f"| `priority` {', '.join(numbers)} | `priority` {', '.join(map(str, PRIORITIES.values()))};" in section


def test_example_of_the_reference_is_a_graph() -> None:
    path = DOCS / "examples" / "monthly_report.graph.json"
    assert graph_document(read_graph(path)) == json.loads(path.read_text("utf-8"))
