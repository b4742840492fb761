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
from galaxy_trio.daemon.store.records import RetryPolicy, TaskRequest
from galaxy_trio.daemon.task_limits import MAX_CAPABILITIES, MAX_CAPABILITIES_SIZE, MAX_NAME, MAX_TIMEOUT
from galaxy_trio.graph.backoff import MAX_BACKOFF
from galaxy_trio.graph.model import BACKOFF, MAX_RETRIES

if TYPE_CHECKING:
    from galaxy_trio import DeviceStatistics
    from galaxy_trio._codec.sliced_json import Container

INLINE: Final = 2**20
"""The largest result in bytes that is part of its task; a larger one has its own URL."""
_MAX_VALUES: Final = 500_000
"""The number of values and keys that a body may have."""
MAX_PROBLEMS: Final = 20
"""The number of a request's problems that are reported."""
_DEFAULT_TIMEOUT: Final = 1000.0


class BadRequest(Exception):
    """A request is invalid. The message names its problems, the first 20 if there are more."""


async def parse_task(body: bytes) -> TaskRequest:
    """Parse the body of ``POST /tasks``. Other tasks run while a large one is parsed.

    Raises:
        BadRequest: The body is invalid.
    """
    document = await parse_document(body)
    try:
        return _read_task(document)
    except BadRequest as error:
        # Its traceback would keep the document.
        refusal = error.with_traceback(None)
    if isinstance(document, list | dict):
        await finish(free(cast("Container", document)))
    raise refusal


async def parse_document(body: bytes) -> object:
    """Parse a body as JSON. Other tasks run while a large one is parsed.

    Raises:
        BadRequest: It is not JSON, or has too many values.
    """
    try:
        # Programs on Windows begin texts with a byte order mark.
        return await finish(parse_in_slices(body.decode("utf-8-sig"), _MAX_VALUES, unique_keys=True))
    except (UnicodeDecodeError, Unreadable) as error:
        raise BadRequest(f"the body cannot be read: {error}") from None


def _read_task(document: object) -> TaskRequest:
    if not isinstance(document, dict):
        raise BadRequest('the body must be an object such as {"request": "Open Notepad", "device": "laptop"}')
    problems: list[str] = []
    given = cast("dict[str, object]", document)
    # JSON has no whole numbers of its own, and its schemas accept 1.0 as one.
    whole = {name: value for name in ("priority", "retries") if isinstance(value := given.get(name), float)}
    given = {**given, **{name: int(value) for name, value in whole.items() if value.is_integer()}}
    members = ObjectReader(given, "", problems, MAX_PROBLEMS)
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
    policy = _read_policy(members)
    members.refuse_unknown()
    if sum(map(len, capabilities)) > MAX_CAPABILITIES_SIZE:
        members.report("capabilities", f"expected at most {MAX_CAPABILITIES_SIZE:,} characters in all of them together")
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
        policy=policy,
    )


def _read_policy(members: ObjectReader) -> RetryPolicy | None:
    retries = members.integer("retries", minimum=0, maximum=MAX_RETRIES)
    backoff = members.number("backoff", zero=True, maximum=MAX_BACKOFF)
    retry_lost = members.boolean("retry_lost")
    for name, given in (("backoff", backoff is not None), ("retry_lost", bool(retry_lost))):
        if given and not retries:
            members.report(name, "needs retries, the maximum number of further attempts")
    return RetryPolicy(retries, BACKOFF if backoff is None else float(backoff), bool(retry_lost)) if retries else None


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME


def device_as_json(device: DeviceStatistics, queued: int) -> dict[str, object]:
    """Represent a device's current state, with the number of tasks that wait for it, most of which are on disk."""
    return cast("dict[str, object]", unstructure_statistics(attrs.evolve(device, queued=queued)))
