"""The text that is sent for a node: its request, tips, and what the nodes before it returned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from galaxy_trio.graph.model import Node
    from galaxy_trio.graph.snapshot import NodeResult

MAX_INPUTS: Final = 64 * 1024
"""Bytes of the results of all nodes before a node that are part of its text."""


def make_request(node: Node, results: Mapping[str, NodeResult]) -> str:
    """Make the text that is sent for a node.

    A node without tips and without nodes before it is sent as its request alone. The others have the form that the original's devices
    are prompted with, followed by the state, result and error of each node before them, as JSON. Long results are cut; the cut is marked.

    Args:
        node: The node.
        results: The results of the nodes before it, by id.
    """
    if not node.tips and not results:
        return node.request
    tips = ["Tips for Completion:", *(f" - {tip}" for tip in node.tips)] if node.tips else ["No tips available."]
    lines = [f"Task Description: {node.request}", *tips]
    if results:
        share = MAX_INPUTS // len(results)
        lines += ["Results of the tasks before it:", *(_shown(name, result, share) for name, result in results.items())]
    return "\n".join(lines)


def _shown(name: str, result: NodeResult, share: int) -> str:
    """Write a node's result as one line of at most `share` bytes, without the marks."""
    shown = json.dumps(
        {"task": name, "state": result.state, "result": result.result, "error": result.error}, ensure_ascii=False
    ).encode(errors="replace")
    if len(shown) <= share:
        return shown.decode()
    return f"{shown[:share].decode(errors='ignore')}… (cut: {len(shown):,} bytes)"
