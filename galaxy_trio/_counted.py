"""Counts in sentences: "1 tool", "2 tools"."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun in the right form.

    Args:
        number: How many there are.
        noun: The form for one.
        plural: The form for any other number; the noun with an s by default.
    """
    return f"{number} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
