"""The words of the original's JSON, and what they mean here. See "The original's form" in docs/reference/graph-files.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio._config.reader import ObjectReader
from galaxy_trio.constellation.systems import system_name
from galaxy_trio.graph.model import When
from galaxy_trio.graph.state_machine import NodeState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from galaxy_trio.messages import JSON

EXACT: Final = "galaxy_trio"
"""The member of ``task_data`` and ``metadata`` in the original's form that has what it has no word for."""
REST: Final = "original"
"""The member of our metadata that has what only the original's form has."""
FOREVER: Final = 315_360_000.0
"""The timeout that is written for an infinite one, in seconds: 10 years."""
LOST: Final = "lost: "
"""The beginning of the error of a lost node, which the original knows as a failed one."""
UNCONDITIONAL: Final = "unconditional"

PRIORITIES: Final = {"low": -50, "medium": 0, "high": 50, "critical": 100}
"""The original's priorities by name, in the order of their numbers, which begin with 1."""
_BY_NUMBER: Final = dict(enumerate(PRIORITIES.values(), 1))
SYSTEMS: Final = ("windows", "macos", "linux", "android", "ios")
"""The device types that are operating systems."""
SERVICES: Final = ("web", "api")
"""The device types that are capabilities."""
DEVICE_TYPES: Final = (*SYSTEMS, *SERVICES)
OFTEN_EMPTY: Final = frozenset(
    {
        "constellation_id",
        "created_at",
        "updated_at",
        "expected_output_type",
        "condition_description",
        "last_evaluation_time",
    }
)
"""The original's members that are not read, and for which it writes null or an empty text if it does not know them."""
WHENS: Final = {
    UNCONDITIONAL: When.END,
    "conditional": When.CONDITION,
    "success_only": When.SUCCESS,
    "completion_only": When.END,
}
"""The types of dependencies. There, an unconditional one also holds after a failure."""
WHEN_WORDS: Final = {
    When.SUCCESS: "success_only",
    When.FAILURE: "conditional",
    When.CONDITION: "conditional",
    When.END: "completion_only",
}
"""The type that is written for an edge."""
STATES: Final = {
    "pending": NodeState.WAITING,
    "waiting_dependency": NodeState.WAITING,
    "running": NodeState.LOST,
    "completed": NodeState.COMPLETED,
    "failed": NodeState.FAILED,
    "cancelled": NodeState.CANCELLED,
}
"""The states of tasks. One that ran when the document was written may have run to its end."""
STATE_WORDS: Final = {
    NodeState.WAITING: "pending",
    NodeState.READY: "pending",
    NodeState.RUNNING: "running",
    NodeState.COMPLETED: "completed",
    NodeState.FAILED: "failed",
    NodeState.CANCELLED: "cancelled",
    NodeState.LOST: "failed",
    NodeState.SKIPPED: "cancelled",
}
"""The status that is written for a node."""


def priority_of(value: object) -> int | None:
    """Return our priority for the original's, which is a number or a name in any case; None for any other value."""
    if type(value) is int:
        return _BY_NUMBER.get(value)
    return PRIORITIES.get(value.lower()) if isinstance(value, str) else None


def level_of(priority: int) -> int:
    """Return the number of the original's priority that is nearest to ours."""
    return min(_BY_NUMBER, key=lambda number: abs(_BY_NUMBER[number] - priority))


def requirements_of(device_type: str | None) -> tuple[str | None, frozenset[str]]:
    """Return the operating system and the capabilities that a device type stands for."""
    if device_type in SERVICES:
        return None, frozenset([device_type])
    return device_type, frozenset()


def device_type_of(system: str | None, capabilities: Collection[str]) -> str | None:
    """Return the device type that is written for an operating system and capabilities, if there is one."""
    if system is None:
        return next((service for service in SERVICES if service in capabilities), None)
    name = system_name(system)
    return next((known for known in SYSTEMS if system_name(known) == name), None)


def current_retry_of(attempt: int, *, was_sent: bool) -> int:
    """Return the number of attempts besides the first one."""
    return max(attempt - was_sent, 0)


def exact_members(members: Mapping[str, JSON], place: str, problems: list[str]) -> ObjectReader:
    """Return a reader of what the original's form has no words for.

    Args:
        members: The ``task_data`` or ``metadata`` that may contain it.
        place: The path of these in the document.
        problems: Receives the problems.
    """
    given = members.get(EXACT)
    return ObjectReader({} if given is None else given, f"{place}.{EXACT}", problems)


def rest_of(members: Mapping[str, JSON], read: Collection[str]) -> dict[str, JSON]:
    """Return the members that are not read: they are kept, and written again."""
    return {key: value for key, value in members.items() if key not in read and (value or key not in OFTEN_EMPTY)}


def split_metadata(metadata: Mapping[str, JSON], key: str) -> tuple[dict[str, JSON], dict[str, JSON]]:
    """Return metadata for the original's member `key`, and what only the original's form has."""
    members = dict(metadata)
    rest = members.get(REST)
    if not isinstance(rest, dict):
        return members, {}
    del members[REST]
    inner = rest.get(key)
    return members | (inner if isinstance(inner, dict) else {}), rest


def joined_metadata(members: Mapping[str, JSON], rest: Mapping[str, JSON], key: str) -> dict[str, JSON]:
    """Return our metadata for the original's member `key` and what only the original's form has."""
    joined = {name: value for name, value in members.items() if name not in (EXACT, REST)}
    kept = dict(rest)
    if REST in members:
        # Its name is taken.
        kept[key] = {REST: members[REST]}
    if kept:
        joined[REST] = kept
    return joined
