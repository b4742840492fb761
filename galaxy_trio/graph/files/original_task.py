"""Reads a task of the original's form, a TaskStar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio._config.reader import ObjectReader
from galaxy_trio.graph.files.members import checked_request, read_id, read_time, read_timeout
from galaxy_trio.graph.files.original_words import (
    DEVICE_TYPES,
    FOREVER,
    LOST,
    PRIORITIES,
    STATE_WORDS,
    STATES,
    current_retry_of,
    device_type_of,
    exact_members,
    joined_metadata,
    level_of,
    priority_of,
    requirements_of,
    rest_of,
)
from galaxy_trio.graph.model import BACKOFF, MAX_RETRIES, TIMEOUT, Node
from galaxy_trio.graph.snapshot import NodeResult
from galaxy_trio.graph.state_machine import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from galaxy_trio.messages import JSON

KEYS: Final = frozenset(
    {
        "task_id",
        "name",
        "description",
        "tips",
        "task_description",
        "target_device_id",
        "device_type",
        "priority",
        "status",
        "result",
        "error",
        "timeout",
        "retry_count",
        "current_retry",
        "task_data",
        "execution_start_time",
        "execution_end_time",
        "execution_duration",
        "dependencies",
        "dependents",
    }
)
"""The keys of a task that are read, or written from what is known."""
_WITHOUT_WORD: Final = (NodeState.READY, NodeState.SKIPPED, NodeState.LOST)
"""The states that the original does not have."""
_DEVICE_TYPE: Final = "one of " + ", ".join(DEVICE_TYPES)
_PRIORITY: Final = f"a number from 1 to {len(PRIORITIES)}, or one of {', '.join(PRIORITIES)}"
_STATUS: Final = "one of " + ", ".join(STATES)
_EXACT_STATE: Final = "one of " + ", ".join(_WITHOUT_WORD)


def read_task(
    value: object, place: str, key: str | None, new_id: Callable[[], str], problems: list[str]
) -> tuple[Node, NodeResult] | None:
    """Read a task. One whose id is known is returned also if there are problems, so that its dependencies are checked.

    Args:
        value: The task.
        place: Its path in the document.
        key: The key of its object; None in a list.
        new_id: Makes up an id.
        problems: Receives the problems.
    """
    members = ObjectReader(value, place, problems)
    node_id = read_id(members, "task_id", key, new_id)
    older = members.text("task_description")
    request = checked_request(members, "description", members.text("description", required=older is None) or older)
    name, tips = members.text("name"), members.texts("tips")
    device = members.text("target_device_id") or None
    device_type = _read_word(members, "device_type", _DEVICE_TYPE, DEVICE_TYPES)
    level: int | str | None = members.read("priority", _PRIORITY, int, str, accept=_is_priority)
    timeout = members.number("timeout", zero=True)
    retries = members.integer("retry_count", minimum=0, maximum=MAX_RETRIES)
    task_data = members.any_object("task_data")
    exact = exact_members(task_data, f"{place}.task_data", problems)
    backoff, retry_lost = exact.number("backoff", zero=True), exact.boolean("retry_lost")
    system, capabilities = _read_requirements(exact, device_type)
    priority = _read_priority(exact, 0 if level is None else priority_of(level) or 0)
    is_infinite = read_timeout(exact) == math.inf
    result = _read_result(members, exact)
    exact.refuse_unknown()
    if node_id is None:
        return None
    rest = rest_of(cast("dict[str, JSON]", value) if isinstance(value, dict) else {}, KEYS)
    if device is not None:
        # The device tells the rest.
        system, capabilities = None, frozenset[str]()
        if device_type is not None:
            rest["device_type"] = device_type
    node = Node(
        node_id,
        request,
        device=device,
        os=system,
        capabilities=capabilities,
        priority=priority,
        timeout=TIMEOUT if timeout is None else math.inf if is_infinite and timeout == FOREVER else timeout,
        retries=retries or 0,
        backoff=BACKOFF if backoff is None else backoff,
        retry_lost=bool(retry_lost),
        name=name or None,
        tips=tips,
        metadata=joined_metadata(task_data, rest, "task_data"),
    )
    return node, result


def _read_word(members: ObjectReader, key: str, expected: str, words: Collection[str]) -> str | None:
    """Read one of some words, in any case."""
    word = members.text(key, expected, accept=lambda word: word.lower() in words)
    return None if word is None else word.lower()


def _is_priority(value: int | str) -> bool:
    return priority_of(value) is not None


# What the original's form cannot say exactly is also in ``task_data``. It counts as long as the original's own member agrees with it: a
# program that knows only the original's form may have changed that.


def _read_requirements(exact: ObjectReader, device_type: str | None) -> tuple[str | None, frozenset[str]]:
    system, capabilities = exact.text("os"), frozenset(exact.texts("capabilities"))
    if (system is not None or capabilities) and device_type_of(system, capabilities) == device_type:
        return system, capabilities
    return requirements_of(device_type)


def _read_priority(exact: ObjectReader, rounded: int) -> int:
    priority = exact.integer("priority", minimum=-MAX_PRIORITY, maximum=MAX_PRIORITY)
    return rounded if priority is None or level_of(priority) != level_of(rounded) else priority


def _read_result(members: ObjectReader, exact: ObjectReader) -> NodeResult:
    status = _read_word(members, "status", _STATUS, STATES) or "pending"
    result = cast("JSON", members.value("result"))
    error = members.text("error") or None
    started, ended = read_time(members, "execution_start_time"), read_time(members, "execution_end_time")
    current_retry = members.integer("current_retry", minimum=0) or 0
    state = STATES[status]
    if status == "running":
        error = error or "it was running when the document was written"
    own = exact.text("state", _EXACT_STATE, accept=_WITHOUT_WORD.__contains__)
    if own is not None and STATE_WORDS[NodeState(own)] == status:
        state = NodeState(own)
        error = error and error.removeprefix(LOST) if state is NodeState.LOST else error
    attempt = exact.integer("attempt", minimum=0)
    if attempt is None or current_retry_of(attempt, was_sent=started is not None) != current_retry:
        attempt = current_retry + (started is not None)
    task_id, device_id = exact.text("task_id"), exact.text("device_id")
    return NodeResult(state, attempt, result, error or None, task_id, device_id, started, ended)
