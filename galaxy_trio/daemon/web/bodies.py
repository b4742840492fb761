"""What clients send and get, as JSON: strict in what comes in, with an error for each thing that is wrong."""

from __future__ import annotations

import difflib
import json
import math
from typing import TYPE_CHECKING, Final, cast

import attrs

from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio.daemon.store.records import TaskRequest

if TYPE_CHECKING:
    from galaxy_trio import DeviceStatistics
    from galaxy_trio.daemon.store.records import TaskRecord

INLINE: Final = 2**20
"""Bytes of a result up to which it is part of its task; a larger one has an address of its own."""
MAX_TIMEOUT: Final = 7 * 24 * 3600.0
"""Seconds that a task may be allowed at most."""
MAX_NAME: Final = 900
"""Characters of a name, of a capability, and of an idempotency key."""
_KEYS: Final = ("request", "device", "os", "capabilities", "timeout", "idempotency_key")


class BadRequest(Exception):
    """What a client has sent is wrong; says what, and what is right."""


def parse_task(body: bytes) -> TaskRequest:
    """What ``POST /tasks`` was sent.

    Raises:
        BadRequest: All that is wrong with it.
    """
    try:
        document = cast("object", _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass")))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest('the body is an object such as {"request": "Open Notepad", "device": "laptop"}')
    values = cast("dict[str, object]", document)
    problems = [_unknown(key) for key in values if key not in _KEYS]
    request = values.get("request")
    if not isinstance(request, str) or not request or not _is_writable(request):
        problems.append("request: expected a text that says what to do")
    names = {key: _name(values.get(key), key, problems) for key in ("device", "os", "idempotency_key")}
    capabilities = values.get("capabilities", [])
    if not isinstance(capabilities, list) or not all(
        isinstance(item, str) and 0 < len(item) <= MAX_NAME and _is_writable(item)
        for item in cast("list[object]", capabilities)
    ):
        problems.append("capabilities: expected a list of texts")
        capabilities = []
    timeout = values.get("timeout", 1000)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        problems.append(f"timeout: expected a number of seconds above 0, of at most {MAX_TIMEOUT:.0f}")
        timeout = math.inf
    if names["device"] is not None and (names["os"] is not None or capabilities):
        problems.append("device: give a device, or what one must have, and not both")
    if problems:
        raise BadRequest("; ".join(problems))
    return TaskRequest(
        request=cast("str", request),
        device=names["device"],
        os=names["os"],
        capabilities=tuple(cast("list[str]", capabilities)),
        timeout=float(timeout),
        idempotency_key=names["idempotency_key"],
    )


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def _is_writable(text: str) -> bool:
    """Not with halves of characters, which JSON can have, and nothing else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, _KEYS, 1)
    return f"{key[:100]}: there is no such key" + (f"; did you mean {near[0]!r}?" if near else "")


def _name(value: object, key: str, problems: list[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not _is_writable(value):
        problems.append(f"{key}: expected a text of 1 to {MAX_NAME} characters")
        return None
    return value


def task_as_json(record: TaskRecord) -> dict[str, object]:
    """A task, without its result."""
    asked = record.asked
    return {
        "id": record.id,
        "state": record.state.value,
        "request": asked.request,
        "wants": {"device": asked.device, "os": asked.os, "capabilities": list(asked.capabilities)},
        "timeout": asked.timeout,
        "idempotency_key": asked.idempotency_key,
        "device": record.device,
        "created": record.created.isoformat(),
        "started": None if record.started is None else record.started.isoformat(),
        "ended": None if record.ended is None else record.ended.isoformat(),
        "error": record.error,
        "retry_of": record.retry_of,
        "result_size": record.result_size,
        "result_url": None if record.result_size is None else f"/tasks/{record.id}/result",
    }


def device_as_json(device: DeviceStatistics, queued: int) -> dict[str, object]:
    """A device as it is now, with the number of tasks that wait for it: most of them are on disk."""
    return cast("dict[str, object]", unstructure_statistics(attrs.evolve(device, queued=queued)))
