"""A graph of the daemon as the daemon sends it."""

from __future__ import annotations

from collections.abc import Mapping  # attrs reads annotations at run time
from typing import cast

import attrs

from galaxy_trio._cli.graph.layers import shortened
from galaxy_trio.errors import InvalidMessage
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


def parse_graph(found: Mapping[str, JSON]) -> LoadedGraph:
    """Parse the response of ``GET /graphs/ID``.

    Raises:
        InvalidMessage: It is not a graph.
    """
    try:
        loaded = LoadedGraph(
            {key: value for key, value in found.items() if key != "graph"},
            read_graph(cast("Mapping[str, JSON]", found["graph"])),
        )
        _ = loaded.state
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidMessage(f"the daemon sent a graph that cannot be read: {shortened(str(error))}") from None
    return loaded
