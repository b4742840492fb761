"""Makes up ids for nodes and edges that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def free_ids(pattern: str, taken: Collection[object]) -> Callable[[], str]:
    """Return a function that makes up an id with each call."""
    number = 0

    def new_id() -> str:
        nonlocal number
        while True:
            number += 1
            made = pattern.format(number)
            if made not in taken:
                return made

    return new_id
