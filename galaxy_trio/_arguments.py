"""Argument checks that several packages share: names, numbers, limits."""

from __future__ import annotations

from typing import Final

from galaxy_trio.errors import ConfigError

MAX_ID: Final = 1_000
"""The maximum length of device and client ids, in characters."""
MAX_MESSAGE_SIZE: Final = 100 * 2**20
"""The default maximum size of a message, in bytes, for both directions. The original server has the same."""
MAX_VALUES: Final = 500_000
"""The default maximum number of values and keys of a received message."""
MEMORY_BUDGET: Final = 2**30
"""The default maximum number of bytes that the connections of one server, agent or constellation hold together."""
MAX_PARTS: Final = 10_000
"""The number of commands or results of one message."""
MAX_PRIORITY: Final = 100
"""The highest priority of a task. The lowest one is its negative."""
_MAX_NAME: Final = 64
"""The maximum length of client names and task ids, in characters. Together they form a session id, which an error must be able to quote."""


def check_name(what: str, name: str, most: int) -> str:
    """Return a name unchanged.

    Args:
        what: What it names, for the error message.
        name: The name to check.
        most: The maximum length in characters.

    Raises:
        ConfigError: The name is empty, too long, or cannot be sent.
    """
    try:
        name.encode()
        sendable = True
    except UnicodeEncodeError:
        sendable = False
    if not sendable:
        raise ConfigError(f"a {what} is text, and this one contains a lone surrogate, which cannot be sent")
    if not 0 < len(name) <= most:
        raise ConfigError(f"a {what} has 1 to {most} characters, and this one has {len(name)}")
    return name


def check_client_name(name: str) -> str:
    """Return a client's name unchanged.

    Raises:
        ConfigError: The name is empty, too long, or cannot be sent.
    """
    return check_name("client_name", name, _MAX_NAME)


def check_task_id(task_id: str) -> str:
    """Return a task's id unchanged.

    Raises:
        ConfigError: The id is empty, too long, or cannot be sent.
    """
    return check_name("task_id", task_id, _MAX_NAME)


def check_positive(**numbers: float | None) -> None:
    """Check that each given number is above 0.

    Raises:
        ConfigError: One is not; the message has its name.
    """
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ConfigError(f"{name} must be above 0, and is {number!r}")


def is_priority(value: object) -> bool:
    """Whether a value is a priority of a task: a whole number from -100 to 100."""
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_PRIORITY <= value <= MAX_PRIORITY


def check_priority(priority: int) -> None:
    """Check the priority of a task.

    Raises:
        ValueError: It is not a whole number from -100 to 100.
    """
    if not is_priority(priority):
        raise ValueError(f"a priority is a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}")
