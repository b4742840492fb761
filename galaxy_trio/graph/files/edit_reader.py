"""Reads an edit of a graph as data: the changes that `GraphEdit` makes, in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from galaxy_trio._config.reader import ObjectReader
from galaxy_trio.graph.files.our_reader import read_edge, read_node
from galaxy_trio.graph.model import Edge, Node  # attrs reads annotations at run time

if TYPE_CHECKING:
    from galaxy_trio.graph.edit import GraphEdit

MAX_CHANGES: Final = 2_000
"""The number of changes in an edit."""


@attrs.frozen
class GivenEdit:
    """An edit.

    Attributes:
        version: The version that the graph must have; `None` for any.
        add: New nodes.
        replace: Nodes in place of those with the same ids.
        remove: The ids of nodes that go.
        connect: New edges.
        disconnect: The source and the target of each pair of nodes whose edges go.
    """

    version: int | None
    add: tuple[Node, ...]
    replace: tuple[Node, ...]
    remove: tuple[str, ...]
    connect: tuple[Edge, ...]
    disconnect: tuple[tuple[str, str], ...]

    def apply(self, edit: GraphEdit) -> None:
        """Make the changes: what goes, then what is replaced, then what is new.

        Raises:
            GraphError: One of them is not possible.
        """
        for source, target in self.disconnect:
            edit.disconnect(source, target)
        for node_id in self.remove:
            edit.remove(node_id)
        for node in self.replace:
            edit.replace(node)
        for node in self.add:
            edit.add(node)
        for edge in self.connect:
            edit.connect(edge)


def read_edit(document: object, problems: list[str], max_problems: int) -> GivenEdit:
    """Read an edit.

    Args:
        document: The document, as parsed.
        problems: Receives the problems, each with its path.
        max_problems: The number of problems that are reported.

    Returns:
        The edit; an incomplete one if there are problems.
    """
    members = ObjectReader(document, "", problems, max_problems)
    version = members.integer("version", minimum=0)
    lists = {key: _list(members, key, what) for key, what in _LISTS.items()}
    members.refuse_unknown()
    if sum(map(len, lists.values())) > MAX_CHANGES:
        members.report("add", f"an edit has at most {MAX_CHANGES:,} changes")
        lists = {key: list[Any]() for key in lists}
    nodes: dict[str, list[Node]] = {"add": [], "replace": []}
    for key, found in nodes.items():
        for index, value in enumerate(lists[key]):
            node = read_node(value, f"{key}[{index}]", problems)
            if node is not None:
                found.append(node)
    edges: list[Edge] = []
    for index, value in enumerate(lists["connect"]):
        edge = read_edge(value, f"connect[{index}]", members, {}, problems)
        if edge is not None:
            edges.append(edge)
    pairs = [_pair(value, f"disconnect[{index}]", problems) for index, value in enumerate(lists["disconnect"])]
    return GivenEdit(
        version, tuple(nodes["add"]), tuple(nodes["replace"]), members.texts("remove"), tuple(edges), tuple(pairs)
    )


_LISTS: Final = {
    "add": "a list of nodes",
    "replace": "a list of nodes",
    "remove": "a list of the ids of nodes",
    "connect": "a list of edges",
    "disconnect": "a list of objects with a source and a target",
}


def _list(members: ObjectReader, key: str, what: str) -> list[Any]:  # Any: any JSON
    found: list[Any] | None = members.read(key, what, list)
    return found or []


def _pair(value: object, place: str, problems: list[str]) -> tuple[str, str]:
    members = ObjectReader(value, place, problems)
    source, target = members.text("source", required=True), members.text("target", required=True)
    members.refuse_unknown()
    return source or "", target or ""
