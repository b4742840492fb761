"""The beginning of a result: as much of it as the text of a task shows, however large the result is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

MOST_ESCAPED: Final = 3
"""The most bytes of JSON in ASCII for a byte of JSON in UTF-8: ``\\u00e9`` stands for two bytes."""
MOST_LOST: Final = 4_500
"""The most bytes that `parse_beginning` leaves out: no number is longer."""
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+|\s+')
_CUT_ESCAPE: Final = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-f]{0,3})?)\Z")


def parse_beginning(text: str) -> JSON:
    """Parse the beginning of JSON in ASCII, which is cut anywhere.

    Strings are cut where the text is, and a key without a value gets null, unless it is the same as a key before it because it is cut.
    A number or a word at the end, which may be cut, is left out.
    """
    closing: list[str] = []
    # The longest part that can be closed, and what closes it.
    whole, closes = 0, ""
    at = 0
    is_key = False
    for token in _TOKEN.finditer(text):
        shown = token.group()
        if token.start() != at:
            break
        at = token.end()
        if shown in ("[", "{"):
            closing.append("]" if shown == "[" else "}")
            is_key = shown == "{"
            whole, closes = at, ""
        elif shown in ("]", "}"):
            closing.pop()
            whole, closes = at, ""
        elif shown == ",":
            # What is before it is complete, also a number.
            is_key = closing[-1] == "}"
            whole, closes = token.start(), ""
        elif shown == ":":
            is_key = False
            whole, closes = at, "null"
        elif shown[0] == '"':
            whole, closes = at, ":null" if is_key else ""
    complete = text[:whole]
    if text.startswith('"', at):
        complete, closes = _without_cut_escape(text), '":null' if is_key else '"'
    if not complete:
        return None
    return cast(
        "JSON", json.loads(complete + closes + "".join(reversed(closing)), object_pairs_hook=_with_first_values)
    )


def _with_first_values(pairs: list[tuple[str, JSON]]) -> JSON:
    found: dict[str, JSON] = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def _without_cut_escape(text: str) -> str:
    cut = _CUT_ESCAPE.search(text)
    return text if cut is None else text[: cut.start(1)]
