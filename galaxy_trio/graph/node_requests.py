"""The text that is sent for a node: its request, tips, and what the nodes before it returned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from galaxy_trio._json_size import json_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from galaxy_trio.graph.model import Node
    from galaxy_trio.graph.snapshot import NodeResult
    from galaxy_trio.messages import JSON

MAX_INPUTS: Final = 64 * 1024
"""Bytes of the results of all nodes before a node that are part of its text."""
_LEAST: Final = 1024
"""The least share of them that a result has. If there are more results than shares, the last ones are left out."""
_MARK: Final = "… (cut)"
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


def make_request(node: Node, results: Mapping[str, NodeResult]) -> str:
    """Make the text that is sent for a node.

    A node without tips and without nodes before it is sent as its request alone. The others have the form that the original's devices
    are prompted with, followed by the state, result and error of each node before them, as JSON: at most 64 KiB together. Long results are
    cut, and marked as cut. All have the same share, of 1 KiB at least; the results that have none are counted.

    Args:
        node: The node.
        results: The results of the nodes before it, by id.
    """
    if not node.tips and not results:
        return node.request
    tips = ["Tips for Completion:", *(f" - {tip}" for tip in node.tips)] if node.tips else ["No tips available."]
    lines = [f"Task Description: {node.request}", *tips]
    if results:
        share = max(MAX_INPUTS // len(results), _LEAST)
        shown = list(results.items())[: MAX_INPUTS // share]
        lines += ["Results of the tasks before it:", *(_shown(name, result, share) for name, result in shown)]
        if len(shown) < len(results):
            lines.append(f"… ({len(results) - len(shown):,} more results)")
    return "\n".join(lines)


def _shown(name: str, result: NodeResult, share: int) -> str:
    """Write a node's result as one line of at most `share` bytes."""
    shown = bytearray()
    for part in _parts(name, result, share):
        shown += part.encode(errors="replace")
        if len(shown) >= share:
            return f"{shown[: share - 1 - len(_MARK.encode())].decode(errors='ignore')}{_MARK}"
    return shown.decode()


def _parts(name: str, result: NodeResult, share: int) -> Iterable[str]:
    value, error = result.result, result.error
    if isinstance(value, dict | list) and json_size(value, share) > share:
        # A large result is not written whole.
        return _ENCODER.iterencode({"task": name, "state": result.state, "result": value, "error": error})
    shown = [_json(item, share) for item in (name, value, error)]
    return ('{{"task": {}, "state": "{}", "result": {}, "error": {}}}'.format(shown[0], result.state, *shown[1:]),)


def _json(value: JSON, share: int) -> str:
    if value is None:
        # The encoder is slow for all but strings.
        return "null"
    return _ENCODER.encode(value[:share] if isinstance(value, str) else value)
