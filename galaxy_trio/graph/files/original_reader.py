"""Reads the original's form of a graph, a TaskConstellation: as the original writes it, and as its model does, with lists and capitals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.reader import ObjectReader, member_path
from galaxy_trio.graph.files.assembly import Assembly
from galaxy_trio.graph.files.members import checked_name, read_condition, read_id
from galaxy_trio.graph.files.original_task import read_task
from galaxy_trio.graph.files.original_words import EXACT, UNCONDITIONAL, WHENS, exact_members, joined_metadata, rest_of
from galaxy_trio.graph.model import Edge, When
from galaxy_trio.graph.snapshot import NodeResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from galaxy_trio.graph.files.members import Conditions
    from galaxy_trio.graph.snapshot import GraphSnapshot
    from galaxy_trio.messages import JSON

CONSTELLATION_KEYS: Final = frozenset(
    {
        "name",
        "state",
        "tasks",
        "dependencies",
        "metadata",
        "execution_start_time",
        "execution_end_time",
        "execution_duration",
    }
)
"""The keys of a constellation that are read, or written from what is known of its tasks."""
DEPENDENCY_KEYS: Final = frozenset(
    {"line_id", "from_task_id", "to_task_id", "dependency_type", "metadata", "is_satisfied", "last_evaluation_result"}
)
"""The keys of a dependency that are read, or written from what is known of its tasks."""
_TYPE: Final = "one of " + ", ".join(WHENS)
_UNTOUCHED: Final = NodeResult()


def read_original_graph(document: object, problems: list[str], conditions: Conditions) -> GraphSnapshot:
    """Read a document.

    Args:
        document: The document, as parsed.
        problems: Receives the problems, each with its path.
        conditions: The functions of conditional edges, by the edges' ids.

    Returns:
        The graph and what is known of its nodes; an empty one if there are problems.
    """
    members = ObjectReader(document, "", problems)
    assembly = Assembly(members, problems, "tasks", "dependencies")
    tasks, dependencies = _items(members, "tasks"), _items(members, "dependencies")
    name, metadata = members.text("name"), members.any_object("metadata")
    exact = exact_members(metadata, "metadata", problems)
    version = exact.integer("version", minimum=0)
    exact.refuse_unknown()
    if not assembly.has_room(len(tasks), len(dependencies)):
        tasks, dependencies = [], []
    results = dict[str, NodeResult]()
    new_id = _free_ids("task_{:03}", _ids(tasks, "task_id"))
    for place, key, value in assembly.until_full(tasks):
        task = read_task(value, place, key, new_id, problems)
        if task is None:
            continue
        node, result = task
        assembly.add_node(f"{place}.task_id", node)
        if result != _UNTOUCHED:
            results[node.id] = result
    new_id = _free_ids("line_{:03}", _ids(dependencies, "line_id"))
    for place, key, value in assembly.until_full(dependencies):
        edge = _read_dependency(value, place, key, new_id, assembly, conditions, problems)
        if edge is not None:
            assembly.add_edge(f"{place}.from_task_id", f"{place}.to_task_id", f"{place}.line_id", edge)
    if members.value("tasks") is None:
        members.report("tasks", "is missing")
    rest = rest_of(cast("dict[str, JSON]", document), CONSTELLATION_KEYS)
    return assembly.snapshot(
        name=name or None,
        metadata=joined_metadata(metadata, rest, "metadata"),
        version=version or 0,
        results=results,
        decisions={},
    )


def _items(members: ObjectReader, key: str) -> list[tuple[str, str | None, object]]:
    """Return the place, the key and the value of each member or item."""
    given: object = members.read(key, f"an object or a list of {key}", dict, list)
    if isinstance(given, dict):
        named = cast("dict[str, object]", given)
        return [(member_path(key, name), name, value) for name, value in named.items()]
    return [(f"{key}[{index}]", None, value) for index, value in enumerate(cast("list[object]", given or []))]


def _free_ids(pattern: str, taken: Collection[object]) -> Callable[[], str]:
    """Return a function that makes up an id with each call."""
    number = 0

    def new_id() -> str:
        nonlocal number
        while True:
            number += 1
            made = pattern.format(number)
            if made not in taken:
                return made

    return new_id


def _ids(items: list[tuple[str, str | None, object]], id_key: str) -> set[object]:
    """Return all ids that are given. Some may be invalid."""
    given = [cast("dict[str, object]", value).get(id_key) for _, _, value in items if isinstance(value, dict)]
    return {each for each in (*given, *(key for _, key, _ in items)) if isinstance(each, str)}


def _read_dependency(
    value: object,
    place: str,
    key: str | None,
    new_id: Callable[[], str],
    assembly: Assembly,
    conditions: Conditions,
    problems: list[str],
) -> Edge | None:
    members = ObjectReader(value, place, problems)
    source = checked_name(members, "from_task_id", members.text("from_task_id", required=True))
    target = checked_name(members, "to_task_id", members.text("to_task_id", required=True))
    edge_id = read_id(members, "line_id", key, new_id)
    given = (members.text("dependency_type", _TYPE, accept=lambda word: word.lower() in WHENS) or UNCONDITIONAL).lower()
    when, condition = WHENS[given], None
    metadata = members.any_object("metadata")
    if when is When.CONDITION:
        exact = exact_members(metadata, f"{place}.metadata", problems)
        is_failure = exact.text("when", When.FAILURE, accept=lambda word: word == When.FAILURE) is not None
        own = exact.value("condition")
        exact.refuse_unknown()
        if is_failure:
            when = When.FAILURE
        else:
            at = f"{place}.metadata.{EXACT}.condition"
            condition = read_condition(assembly.document, at, own, edge_id, conditions, problems)
    if source is None or target is None:
        return None
    rest = rest_of(cast("dict[str, JSON]", value), DEPENDENCY_KEYS)
    if given == UNCONDITIONAL:
        rest["dependency_type"] = given
    return Edge(
        source, target, when, condition=condition, id=edge_id, metadata=joined_metadata(metadata, rest, "metadata")
    )
