"""The limits of the daemon's graphs: a graph must not delay other tasks for long, nor fill the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio.daemon.task_limits import MAX_CAPABILITIES, MAX_CAPABILITIES_SIZE, MAX_NAME
from galaxy_trio.errors import GraphFileError, GraphTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from galaxy_trio.graph import Node

MAX_EDGES: Final = 20_000
MAX_SIZE: Final = 8 * 2**20
"""The largest graph, with the bytes of memory of its texts and data: a transaction that adds or edits it must not delay others for long."""
MAX_REQUIREMENTS: Final = 200
"""The different requirements of a graph's nodes, including those that name a device: the scheduler has a queue for each."""


def check_size(edges: int, size: int) -> None:
    """Check the size of a graph as it would be.

    Raises:
        GraphTooLarge: It has too many edges, or too many bytes of texts and data.
    """
    if edges > MAX_EDGES or size > MAX_SIZE:
        raise GraphTooLarge(
            f"a graph of the daemon has at most {MAX_EDGES:,} edges and {MAX_SIZE:,} bytes of texts, "
            f"and this one would have {edges:,} and {size:,}: use several graphs"
        )


def check_requirements(nodes: Iterable[Node], place: str) -> None:
    """Check how many different devices the nodes of a graph require.

    Args:
        nodes: All nodes of the graph as it would be.
        place: The path of the nodes in the client's document.

    Raises:
        GraphFileError: There are too many different requirements.
    """
    different = len({(node.device, node.os, node.capabilities) for node in nodes})
    if different > MAX_REQUIREMENTS:
        problem = (
            f"{place}: the nodes of a graph have at most {MAX_REQUIREMENTS:,} different combinations of device, os and capabilities, "
            f"and those of this one would have {different:,}: use several graphs"
        )
        raise GraphFileError(problem, problems=[problem])


def requirement_problems(node: Node) -> Iterator[tuple[str, str]]:
    """Say what is wrong with the device that a node requires: the name of the attribute, and a sentence."""
    for name, text in (("device", node.device), ("os", node.os)):
        if text is not None and len(text) > MAX_NAME:
            yield name, f"expected at most {MAX_NAME:,} characters"
    if len(node.capabilities) > MAX_CAPABILITIES:
        yield "capabilities", f"expected at most {MAX_CAPABILITIES:,} capabilities"
    elif any(len(capability) > MAX_NAME for capability in node.capabilities):
        yield "capabilities", f"expected at most {MAX_NAME:,} characters in each of them"
    elif sum(map(len, node.capabilities)) > MAX_CAPABILITIES_SIZE:
        yield "capabilities", f"expected at most {MAX_CAPABILITIES_SIZE:,} characters in all of them together"
