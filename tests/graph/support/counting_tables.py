"""A graph's rows, which count what is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph.memory_tables import LiveEdge, LiveNode, MemoryTables

if TYPE_CHECKING:
    from collections.abc import Collection


class CountingTables(MemoryTables):
    """Counts the rows that are loaded."""

    loaded = 0

    def node(self, node_id: str) -> LiveNode:
        self.loaded += 1
        return super().node(node_id)

    def incoming(self, node_id: str) -> Collection[LiveEdge]:
        self.loaded += len(super().incoming(node_id))
        return super().incoming(node_id)

    def outgoing(self, node_id: str) -> Collection[LiveEdge]:
        self.loaded += len(super().outgoing(node_id))
        return super().outgoing(node_id)
