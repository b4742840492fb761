"""The JSON that clients send and receive. Requests are read strictly, with an error for each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import attrs

from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio._codec.codec import unstructure_statistics
from galaxy_trio._codec.json_text import Unreadable, parse_in_slices
from galaxy_trio._codec.sliced_json import free
from galaxy_trio._concurrency.slices import finish
from galaxy_trio._config.reader import ObjectReader
from galaxy_trio.daemon.store.records import TaskRequest

if TYPE_CHECKING:
    from galaxy_trio import DeviceStatistics
    from galaxy_trio._codec.sliced_json import Container
    from galaxy_trio.daemon.store.records import TaskRecord

INLINE: Final = 2**20
"""The largest result in bytes that is part of its task; a larger one has its own URL."""
MAX_TIMEOUT: Final = 7 * 24 * 3600.0
"""The longest timeout of a task, in seconds."""
MAX_NAME: Final = 900
"""The maximum length of a name, a capability and an idempotency key, in characters."""
MAX_CAPABILITIES: Final = 100
"""The maximum number of capabilities."""
_MAX_VALUES: Final = 500_000
"""The number of values and keys that a body may have."""
_MAX_PROBLEMS: Final = 20
"""The number of a request's problems that are reported."""
_DEFAULT_TIMEOUT: Final = 1000.0


class BadRequest(Exception):
    """A request is invalid. The message names its problems, the first 20 if there are more."""


async def parse_task(body: bytes) -> TaskRequest:
    """Parse the body of ``POST /tasks``. Other tasks run while a large one is parsed.

    Raises:
        BadRequest: The body is invalid.
    """
    try:
        # Programs on Windows begin texts with a byte order mark.
        document = await finish(parse_in_slices(body.decode("utf-8-sig"), _MAX_VALUES, unique_keys=True))
    except (UnicodeDecodeError, Unreadable) as error:
        raise BadRequest(f"the body cannot be read: {error}") from None
    try:
        return _read_task(document)
    except BadRequest as error:
        # Its traceback would keep the document.
        refusal = error.with_traceback(None)
    if isinstance(document, list | dict):
        await finish(free(cast("Container", document)))
    raise refusal


def _read_task(document: object) -> TaskRequest:
    if not isinstance(document, dict):
        raise BadRequest('the body must be an object such as {"request": "Open Notepad", "device": "laptop"}')
    problems: list[str] = []
    members = ObjectReader(cast("object", document), "", problems, _MAX_PROBLEMS)
    name = f"a text of 1 to {MAX_NAME} characters"
    request = members.text("request", "a text that says what to do", accept=bool, required=True)
    device = members.text("device", name, accept=_is_name)
    os = members.text("os", name, accept=_is_name)
    capabilities = members.texts(
        "capabilities",
        f"a list of at most {MAX_CAPABILITIES} texts",
        name,
        accept=_is_name,
        nullable=False,
        maximum=MAX_CAPABILITIES,
    )
    timeout = members.number("timeout", maximum=MAX_TIMEOUT, nullable=False)
    idempotency_key = members.text("idempotency_key", name, accept=_is_name)
    priority = members.integer("priority", minimum=-MAX_PRIORITY, maximum=MAX_PRIORITY)
    members.refuse_unknown()
    if device is not None and (os is not None or capabilities):
        members.report("device", "give a device, or the properties that one must have, not both")
    if problems or request is None:
        raise BadRequest("; ".join(problems))
    return TaskRequest(
        request=request,
        device=device,
        os=os,
        capabilities=capabilities,
        timeout=_DEFAULT_TIMEOUT if timeout is None else float(timeout),
        idempotency_key=idempotency_key,
        priority=priority or 0,
    )


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME


def task_as_json(record: TaskRecord) -> dict[str, object]:
    """Represent a task without its result."""
    asked = record.asked
    return {
        "id": record.id,
        "state": record.state.value,
        "request": asked.request,
        "wants": {"device": asked.device, "os": asked.os, "capabilities": list(asked.capabilities)},
        "timeout": asked.timeout,
        "priority": asked.priority,
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
    """Represent a device's current state, with the number of tasks that wait for it, most of which are on disk."""
    return cast("dict[str, object]", unstructure_statistics(attrs.evolve(device, queued=queued)))
