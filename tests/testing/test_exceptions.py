"""A test's own exceptions and cancellation pass through the testing tools."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio

from galaxy_trio.testing import open_bare_peer, open_memory_server, open_scripted_peer

OpenEnd: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

ENDS: dict[str, OpenEnd] = {
    "scripted peer": open_scripted_peer,
    "bare peer": open_bare_peer,
    "memory server": open_memory_server,
}


@pytest.mark.parametrize("open_end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        AssertionError("mine"),
        KeyboardInterrupt(),
        ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
    ],
    ids=repr,
)
async def test_exception_of_a_test_comes_out_unchanged(open_end: OpenEnd, error: BaseException) -> None:
    cause, context = KeyError("cause"), LookupError("context")
    error.__cause__, error.__context__ = cause, context
    with pytest.raises(type(error)) as caught:
        async with open_end():
            raise error
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context


@pytest.mark.parametrize("open_end", ENDS.values(), ids=ENDS)
async def test_cancellation_of_a_test_passes_through(open_end: OpenEnd) -> None:
    with trio.CancelScope() as scope:
        async with open_end():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_ends_log_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for open_end in (open_scripted_peer, open_bare_peer, open_memory_server):
        async with open_end():
            pass
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
