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
"""The different combinations of os and capabilities that a graph's nodes require: the scheduler has a queue for each."""
MAX_DEVICES: Final = 1_000
"""The different devices that a graph's nodes name, for each of which the scheduler has a queue as well: more than most fleets have."""


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
    given = list(nodes)
    devices = {node.device for node in given if node.device is not None}
    combinations = {(node.os, node.capabilities) for node in given if node.device is None}
    for different, maximum, what in (
        (len(combinations), MAX_REQUIREMENTS, "combinations of os and capabilities"),
        (len(devices), MAX_DEVICES, "devices"),
    ):
        if different > maximum:
            problem = (
                f"{place}: the nodes of a graph require at most {maximum:,} different {what}, "
                f"and those of this one would require {different:,}: use several graphs"
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
