"""Makes text from anywhere safe to show: on a terminal, in a log."""

from __future__ import annotations

import re
from typing import Final

# Control characters except tabs and line ends; characters that have no width, or change the direction or the shape of others; line
# separators; lone surrogates. Of those without a width, only U+FE00 to U+FE0F stay, which choose between a symbol and its picture.
_HARMFUL: Final = re.compile(
    r"["
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r"]|\r(?!\n)"
)


def printable(text: str) -> str:
    r"""Escape, as in JSON, the characters of a text that control a terminal or are not seen on it. Line ends and tabs stay.

    What is outside of strings in JSON is never escaped, so JSON stays JSON.
    """
    return _HARMFUL.sub(lambda harmful: _escape(harmful[0]), text)


def one_line(text: str) -> str:
    """Like `printable`, on one line, with each run of white space replaced by one space."""
    return printable(" ".join(text.split()))


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
