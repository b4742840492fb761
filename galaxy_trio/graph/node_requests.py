"""The text that is sent for a node: its request, tips, and what the nodes before it returned."""

from __future__ import annotations

import json
from json.encoder import encode_basestring
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
        share = share_of(len(results))
        shown = list(results.items())[: MAX_INPUTS // share]
        lines += ["Results of the tasks before it:", *(_shown(name, result, share) for name, result in shown)]
        if len(shown) < len(results):
            lines.append(f"… ({len(results) - len(shown):,} more results)")
    return "\n".join(lines)


def share_of(results: int) -> int:
    """The bytes that a text has for each of this many results. As many are shown as have room."""
    return max(MAX_INPUTS // results, _LEAST)


def _shown(name: str, result: NodeResult, share: int) -> str:
    """Write a node's result as one line of at most `share` bytes."""
    value, error = result.result, result.error
    if value is not None and not isinstance(value, str) and json_size(value, share) > share:
        # A large result is not written whole.
        parts = _ENCODER.iterencode({"task": name, "state": result.state, "result": value, "error": error})
        return _shortened(parts, share)
    # The encoder is slow for all but strings.
    shown_value = "null" if value is None else _json(value, share)
    shown_error = "null" if error is None else _json(error, share)
    line = (
        f'{{"task": {_json(name, share)}, "state": "{result.state}", "result": {shown_value}, "error": {shown_error}}}'
    )
    # Most lines are short, and can be sent as they are.
    return line if len(line) < share and line.isascii() else _shortened([line], share)


def _shortened(parts: Iterable[str], share: int) -> str:
    """Join the parts of a line, up to `share` bytes of UTF-8."""
    shown = bytearray()
    for part in parts:
        shown += part.encode(errors="replace")
        if len(shown) >= share:
            return f"{shown[: share - 1 - len(_MARK.encode())].decode(errors='ignore')}{_MARK}"
    return shown.decode()


def _json(value: JSON, share: int) -> str:
    return encode_basestring(value[:share]) if isinstance(value, str) else _ENCODER.encode(value)
