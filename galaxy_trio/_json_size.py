"""The memory that a JSON value takes."""

from __future__ import annotations

import sys
from typing import cast


def json_size(value: object, limit: int) -> int:
    """Count the bytes of a JSON value in memory, in a time that the limit bounds.

    Values that occur several times are counted each time.

    Args:
        value: Any JSON, or a tuple of such values.
        limit: Counting ends above it.

    Returns:
        The number of bytes; if it is above the limit, at least as many.
    """
    size = 0
    values = [value]
    while values and size <= limit:
        value = values.pop()
        size += sys.getsizeof(value)
        # A container takes several bytes for each of its values, so there are few if it is within the limit.
        if isinstance(value, list | tuple | dict) and size <= limit:
            items = cast("list[object] | tuple[object, ...] | dict[object, object]", value)
            values += items
            if isinstance(items, dict):
                values += items.values()
    return size
