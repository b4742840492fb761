"""Encodes results as JSON: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_SMALL: Final = 4_096
"""Characters and values up to which a result is encoded in the event loop, which takes less time than a thread switch."""
_threads: Final = ThreadLimit("encoding results", 2)


async def encode(result: JSON) -> str:
    """Encode a result as JSON, in ASCII."""
    if _is_small(result):
        return json.dumps(result)
    return await trio.to_thread.run_sync(json.dumps, result, limiter=_threads.get())


def _is_small(result: JSON) -> bool:
    """Whether a result is small, found out in a bounded time."""
    left = _SMALL
    values: list[object] = [result]
    while values and left >= 0:
        value = values.pop()
        left -= 1
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, list | dict):
            items = cast("list[object] | dict[str, object]", value)
            left -= len(items)
            if left < 0:
                break
            if isinstance(items, dict):
                values.extend(items.keys())
                values.extend(items.values())
            else:
                values.extend(items)
    return left >= 0
