"""Encodes results as JSON: small ones in the event loop, large ones in a thread."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._json_size import json_size

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_SMALL: Final = 4_500
"""Bytes in memory up to which a result is encoded in the event loop, which takes less time than a thread switch."""
_threads: Final = ThreadLimit("encoding results", 2)


async def encode(result: JSON) -> str:
    """Encode a result as JSON, in ASCII. If cancelled, its thread is waited for."""
    if json_size(result, _SMALL) <= _SMALL:
        return json.dumps(result)
    return await trio.to_thread.run_sync(json.dumps, result, limiter=_threads.get())
