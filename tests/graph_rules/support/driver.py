"""What a graph is driven by: the library, or a daemon over HTTP. The tests of rules see no difference between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import attrs

from galaxy_trio.graph import Edge, GraphSnapshot, Node

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from galaxy_trio.graph import Graph
    from galaxy_trio.messages import JSON

Form: TypeAlias = Literal["ours", "original"]


@attrs.frozen(kw_only=True)
class Change:
    """An edit: what goes, then what is replaced, then what is new."""

    version: int | None = None
    disconnect: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    replace: tuple[Node, ...] = ()
    add: tuple[Node, ...] = ()
    connect: tuple[Edge, ...] = ()


class Refused(Exception):
    """The graph refuses a change. The message has the words of the refusal.

    Attributes:
        version: The graph's version, if another one was given.
    """

    def __init__(self, words: str, version: int | None = None) -> None:
        super().__init__(words)
        self.version = version


@attrs.frozen
class View:
    """A graph as it is at one moment.

    Attributes:
        state: Its state.
        snapshot: Its nodes and edges, and what is known of them.
    """

    state: str
    snapshot: GraphSnapshot

    @property
    def states(self) -> dict[str, str]:
        """The states of the nodes."""
        return {node.id: self.snapshot.node(node.id).state.value for node in self.snapshot.graph.nodes}


class Watch(Protocol):
    """Collects the events of a graph."""

    async def until(self, state: str) -> dict[str, list[str]]:
        """Wait until the graph is in a state. Returns the states that each node came to, and under "" the graph's versions and states.

        Whether a node runs is left out: it is an event of the graph in the library, and of the node's task in the daemon.
        """
        ...


class Driver(Protocol):
    """Drives one graph."""

    async def start(self, graph: Graph | Mapping[str, JSON]) -> None:
        """Run a graph, or a document of one from its beginning."""
        ...

    async def look(self) -> View:
        """Return the graph as it is now."""
        ...

    async def export(self, form: Form) -> dict[str, JSON]:
        """Return the graph as a document that can be read again."""
        ...

    async def edit(self, change: Change) -> int:
        """Edit the graph, and return its version; raises `Refused`."""
        ...

    async def cancel(self, node_id: str | None = None) -> None:
        """Cancel the graph or a node; raises `Refused`."""
        ...

    async def retry(self, node_id: str) -> None:
        """Run a node again; raises `Refused`."""
        ...

    def watch(self) -> AbstractAsyncContextManager[Watch]:
        """Collect what happens inside the block."""
        ...
