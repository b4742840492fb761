"""Reads the members that both forms of a graph have: names, timeouts, times and conditions."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._config.reader import ObjectReader
from galaxy_trio.errors import GraphError
from galaxy_trio.graph.conditions import Condition
from galaxy_trio.graph.files.json_values import has_lone_surrogate
from galaxy_trio.graph.model import MAX_NODE_ID, MAX_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from galaxy_trio.graph.conditions import Comparison
    from galaxy_trio.graph.model import EdgeCondition
    from galaxy_trio.messages import JSON

    Conditions: TypeAlias = Mapping[str, Callable[[JSON], bool]]

FUNCTION: Final = "function"
"""Stands for a condition that is a function, which no file can hold."""
INFINITE: Final = "inf"
"""Stands for an infinite timeout, for which JSON has no number."""
_SECONDS: Final = f'a number of seconds of 0 or more, or "{INFINITE}"'
_TIME: Final = 'a time such as "2026-01-31T12:00:00+00:00"'
_EXAMPLE: Final = '{"at": "/exit_code", "is": "eq", "value": 0}'
_PLACEHOLDER: Final = Condition("", "exists")


def checked_name(members: ObjectReader, key: str, name: str | None) -> str | None:
    """Report a text that cannot be the id of a node or an edge. Returns it if it can."""
    if name is None or (0 < len(name) <= MAX_NODE_ID and not has_lone_surrogate(name)):
        return name
    members.report(key, f"expected a text of 1 to {MAX_NODE_ID} characters that can be sent")
    return None


def read_id(members: ObjectReader, id_key: str, key: str | None, new_id: Callable[[], str]) -> str | None:
    """Read the id of a task or a line, which may also be the key of its object. Make one up if there is none."""
    given = members.text(id_key) or None
    if given is not None and key is not None and given != key:
        members.report(id_key, "it differs from the key of its object")
    return checked_name(members, id_key, given or key or new_id())


def checked_request(members: ObjectReader, key: str, request: str | None) -> str:
    """Report a request that is too long, and return one that is not."""
    if request is not None and len(request) > MAX_REQUEST:
        members.report(key, f"a request has at most {MAX_REQUEST:,} characters, and this one has {len(request):,}")
        return ""
    return request or ""


def read_timeout(members: ObjectReader) -> float | None:
    """Read the member ``timeout``."""
    timeout: float | str | None = members.read("timeout", _SECONDS, int, float, str, accept=_is_timeout)
    return math.inf if isinstance(timeout, str) else timeout


def _is_timeout(value: float | str) -> bool:
    return value == INFINITE if isinstance(value, str) else 0 <= value < math.inf


def read_time(members: ObjectReader, key: str) -> datetime | None:
    """Read a date and time. One without a time zone is in UTC."""
    text = members.text(key, _TIME, accept=lambda text: _parse_time(text) is not None)
    return None if text is None else _parse_time(text)


def _parse_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def read_condition(
    document: ObjectReader, place: str, given: object, edge_id: str | None, conditions: Conditions, problems: list[str]
) -> EdgeCondition:
    """Read the condition of a conditional edge. A function that is given for the edge takes precedence over what the document has.

    Args:
        document: Reports problems of the document.
        place: The path of the condition in the document.
        given: The object in the document; None or any other value if there is none.
        edge_id: The id of the edge; None if it has none.
        conditions: Functions by the edges' ids.
        problems: Receives the problems of the object.
    """
    if edge_id is not None and edge_id in conditions:
        return conditions[edge_id]
    if not isinstance(given, dict):
        function = f"pass its function to read_graph as conditions={{{edge_id!r}: function}}"
        if edge_id is None:
            function = "give the edge an id, and pass its function to read_graph by this id as conditions={…}"
        document.report(place, f"is missing: give an object such as {_EXAMPLE}, or {function}")
        return _PLACEHOLDER
    found = len(problems)
    members = ObjectReader(cast("object", given), place, problems)
    at, test = members.text("at", required=True), members.text("is", required=True)
    value = cast("JSON", members.value("value"))
    members.refuse_unknown()
    if at is None or test is None or len(problems) > found:
        return _PLACEHOLDER
    try:
        # It checks the test itself.
        return Condition(at, cast("Comparison", test), value)
    except GraphError as error:
        document.report(place, str(error))
        return _PLACEHOLDER
