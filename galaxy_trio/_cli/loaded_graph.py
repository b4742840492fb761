"""A graph of the daemon as the daemon sends it."""

from __future__ import annotations

from collections.abc import Mapping  # attrs reads annotations at run time

import attrs

from galaxy_trio._cli.daemon_reading import is_id, unreadable
from galaxy_trio.graph import GraphSnapshot, GraphState, read_graph
from galaxy_trio.messages import JSON


@attrs.frozen
class LoadedGraph:
    """A graph of the daemon, as it was at one time.

    Attributes:
        record: What the daemon says of it: its id, name, state, and so on.
        snapshot: Its nodes with their states, and its edges.
    """

    record: Mapping[str, JSON]
    snapshot: GraphSnapshot

    @property
    def state(self) -> GraphState:
        """Its state."""
        return GraphState(str(self.record["state"]))


def parse_graph(found: Mapping[str, JSON], shown: str) -> LoadedGraph:
    """Parse the response of ``GET /graphs/ID``.

    Args:
        found: The response.
        shown: The daemon's address.

    Raises:
        InvalidMessage: It is not a graph.
    """
    document = found.get("graph")
    if not isinstance(document, dict):
        # A text would be read as the name of a file.
        raise unreadable(shown, "a graph that cannot be read: it is not an object")
    try:
        loaded = LoadedGraph({key: value for key, value in found.items() if key != "graph"}, read_graph(document))
        _ = loaded.state
        for node_id, result in loaded.snapshot.nodes.items():
            if result.task_id is not None and not is_id(result.task_id):
                raise ValueError(f"the id of the task of node {node_id!r} has not 32 hexadecimal digits")
    except ValueError as error:
        raise unreadable(shown, f"a graph that cannot be read: {error}") from None
    return loaded
