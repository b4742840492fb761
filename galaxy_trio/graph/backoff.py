"""The waits between the attempts of a node."""

from __future__ import annotations

from typing import Final

MAX_BACKOFF: Final = 300.0
"""The longest wait, in seconds."""


def longest_wait(backoff: float, attempt: int) -> float:
    """The longest wait after an attempt that failed, in seconds: it doubles with each, and the wait is anything up to it.

    Args:
        backoff: The longest wait after the first attempt.
        attempt: The number of attempts until now.
    """
    return min(backoff * 2.0 ** min(attempt - 1, 30), MAX_BACKOFF)
