"""What a block and its background tasks have come to, put into one exception."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def raise_outcome(failure: BaseException | None, crashes: list[BaseException], stray: BaseException | None) -> None:
    """Raise what a block and its background tasks have come to, if anything.

    Args:
        failure: What the block raised: comes out as the same object when it is alone.
        crashes: What background tasks raised.
        stray: What came out of the nursery.
    """
    cancelled, rest = (None, None) if stray is None else split_cancelled(stray)
    errors = [error for error in (failure, *crashes, rest) if error is not None]
    for error in (failure, *crashes, *_leaves(rest)):
        if isinstance(error, KeyboardInterrupt):
            raise error
    if len(errors) > 1 and failure is not None and split_cancelled(failure)[1] is None:
        # The block was cancelled, and a crash has more to tell.
        errors.remove(failure)
    if len(errors) > 1:
        raise BaseExceptionGroup("the block and the connection's own tasks failed", errors)
    if errors:
        raise errors[0]
    if cancelled is not None:
        raise cancelled


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part an exception into what is trio's cancellation and what is not. A group of one is that one."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    error = cast("BaseExceptionGroup[BaseException]", error)
    cancelled, rest = error.split(trio.Cancelled)
    return cancelled, None if rest is None else _unwrap(rest)


def _unwrap(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        members = list(cast("BaseExceptionGroup[BaseException]", error).exceptions)
        if len(members) > 1:
            return cast("BaseExceptionGroup[BaseException]", error)
        error = members[0]
    return error


def _leaves(error: BaseException | None) -> list[BaseException]:
    """What is in a nursery's group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [leaf for member in members for leaf in _leaves(member)]
    return [] if error is None else [error]


def contains_cancelled(error: BaseException | None) -> bool:
    """Whether trio's cancellation is in it, alone or in a group."""
    return error is not None and split_cancelled(error)[0] is not None


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery]:
    """A nursery for background tasks, which the end of the block cancels. What the block raises comes out as it is."""
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # raised below, as the same object
                if nursery.cancel_scope.cancel_called:
                    # A background task crashed, and the nursery has cancelled the block: it knows its own.
                    raise
                failure = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        stray = group
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray
