"""Background tasks for a block, with exact exceptions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def raise_outcome(failure: BaseException | None, crashes: list[BaseException], stray: BaseException | None) -> None:
    """Raise the exceptions of a block and its background tasks, if there are any.

    Args:
        failure: The block's exception. Raised as the same object if it is the only one.
        crashes: The background tasks' exceptions.
        stray: The exception that the nursery raised.
    """
    cancelled, rest = (None, None) if stray is None else split_cancelled(stray)
    errors = [error for error in (failure, *crashes, rest) if error is not None]
    for error in (failure, *crashes, *_leaves(rest)):
        if isinstance(error, KeyboardInterrupt):
            raise error
    if len(errors) > 1 and failure is not None and split_cancelled(failure)[1] is None:
        # The block was only cancelled: the crash explains more.
        errors.remove(failure)
    if len(errors) > 1:
        raise BaseExceptionGroup("the block and its background tasks failed", errors)
    if errors:
        raise errors[0]
    if cancelled is not None:
        raise cancelled


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into trio's cancellation and the rest. A group of one becomes its only member."""
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
    """List the exceptions in a nursery's group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [leaf for member in members for leaf in _leaves(member)]
    return [] if error is None else [error]


def first_leaf(error: BaseException) -> BaseException:
    """Return the first exception of a group, at any depth."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def contains_cancelled(error: BaseException | None) -> bool:
    """Whether an exception is or contains trio's cancellation."""
    return error is not None and split_cancelled(error)[0] is not None


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery for background tasks, which are cancelled when the block ends. An exception of the block is raised unchanged."""
    failure: BaseException | None = None
    stray: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # raised below, as the same object
                if nursery.cancel_scope.cancel_called:
                    # A background task crashed and the nursery cancelled the block: the nursery handles its own cancellation.
                    raise
                failure = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        stray = group
    try:
        raise_outcome(failure, [], stray)
    finally:
        del failure, stray
