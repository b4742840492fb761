"""The limits of a task, also of one of a graph's node."""

from __future__ import annotations

from typing import Final

MAX_TIMEOUT: Final = 7 * 24 * 3600.0
"""The longest timeout, in seconds."""
MAX_NAME: Final = 900
"""The maximum length of a name, a capability and an idempotency key, in characters."""
MAX_CAPABILITIES: Final = 100
"""The maximum number of capabilities that a task requires."""
MAX_CAPABILITIES_SIZE: Final = 4_000
"""Maximum characters of all capabilities that a task requires together: every queue and every list of tasks holds them."""
