"""The exceptions of a block and its background tasks are raised exactly, and no cancellation is swallowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from galaxy_trio._concurrency.background import contains_cancelled, open_background, raise_outcome, split_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Bug(Exception):
    """A bug in a background task."""


async def _crash(error: BaseException) -> None:
    raise error


async def _a_cancelled() -> trio.Cancelled:
    """Return a `trio.Cancelled`, which only trio can make."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            return cancelled
    raise AssertionError("not cancelled")


def _members(error: BaseException | None) -> tuple[BaseException, ...]:
    """Return the members of an exception, which must be a group."""
    assert isinstance(error, BaseExceptionGroup)
    return cast("BaseExceptionGroup[BaseException]", error).exceptions


def _raised(
    failure: BaseException | None, crashes: list[BaseException], stray: BaseException | None
) -> BaseException | None:
    try:
        raise_outcome(failure, crashes, stray)
    except BaseException as error:  # noqa: BLE001  # the test is about any exception
        return error
    return None


def test_no_exceptions_raise_nothing() -> None:
    assert _raised(None, [], None) is None


def test_a_single_error_is_raised_as_the_same_object() -> None:
    error = ValueError("alone")
    assert _raised(error, [], None) is error
    assert _raised(None, [error], None) is error
    assert _raised(None, [], error) is error
    assert _raised(None, [], ExceptionGroup("nursery", [ExceptionGroup("nursery", [error])])) is error
    assert (error.__cause__, error.__context__) == (None, None)


def test_the_blocks_own_group_is_raised_as_the_same_object() -> None:
    group = ExceptionGroup("mine", [ValueError("only one")])
    assert _raised(group, [], None) is group


def test_several_errors_are_raised_as_one_group_with_the_blocks_first() -> None:
    failure, crash = ValueError("mine"), Bug("crash")
    stray = ExceptionGroup("nursery", [Bug("stray"), Bug("another")])
    group = _raised(failure, [crash], stray)
    assert _members(group)[:2] == (failure, crash)
    [of_nursery] = _members(group)[2:]
    assert _members(of_nursery) == stray.exceptions
    assert isinstance(group, ExceptionGroup)
    assert group.message == "the block and its background tasks failed"


async def test_a_cancellation_is_raised_only_without_an_error() -> None:
    cancelled, error = await _a_cancelled(), ValueError("mine")
    assert _raised(None, [], cancelled) is cancelled
    group = BaseExceptionGroup("nursery", [cancelled, await _a_cancelled()])
    assert contains_cancelled(_raised(None, [], group))
    assert _raised(error, [], group) is error
    assert _raised(None, [error], cancelled) is error
    assert _raised(None, [], BaseExceptionGroup("nursery", [cancelled, error])) is error


@pytest.mark.parametrize("place", range(3))
def test_a_keyboard_interrupt_is_raised_bare_among_other_errors(place: int) -> None:
    interrupt = KeyboardInterrupt()
    errors: list[BaseException] = [ValueError("mine"), Bug("crash"), Bug("stray")]
    errors[place] = interrupt
    failure, crash, stray = errors
    assert _raised(failure, [crash], BaseExceptionGroup("nursery", [stray])) is interrupt


async def test_an_exception_is_split_into_its_cancellation_and_the_rest() -> None:
    cancelled, error, other = await _a_cancelled(), ValueError(), KeyError()
    assert split_cancelled(error) == (None, error)
    assert split_cancelled(cancelled) == (cancelled, None)
    group = ExceptionGroup("two", [error, other])
    assert split_cancelled(group)[0] is None
    only_cancelled, nothing = split_cancelled(BaseExceptionGroup("one", [cancelled]))
    assert isinstance(only_cancelled, BaseExceptionGroup)
    assert nothing is None
    part, rest = split_cancelled(
        BaseExceptionGroup("all", [cancelled, ExceptionGroup("inner", [ExceptionGroup("innermost", [error])])])
    )
    assert isinstance(part, BaseExceptionGroup)
    assert rest is error
    _, rest = split_cancelled(BaseExceptionGroup("all", [ExceptionGroup("two", [error, other]), cancelled]))
    assert _members(rest) == (error, other)


async def test_contains_cancelled_finds_a_cancellation_in_groups() -> None:
    cancelled = await _a_cancelled()
    assert contains_cancelled(cancelled)
    assert contains_cancelled(BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [cancelled])]))
    assert not contains_cancelled(None)
    assert not contains_cancelled(ValueError())
    assert not contains_cancelled(ExceptionGroup("", [ValueError()]))


async def _outcome(block: Callable[[trio.Nursery], Awaitable[None]]) -> BaseException | None:
    """Return the exception that the block of a background nursery raises."""
    try:
        with trio.fail_after(60):
            async with open_background() as nursery:
                await block(nursery)
    except BaseException as error:  # noqa: BLE001  # the test is about any exception
        return error
    return None


async def test_background_tasks_end_with_the_block() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []

    assert await _outcome(block) is None
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mine"),
        ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
        KeyboardInterrupt(),
        SystemExit(1),
        StopAsyncIteration(),
    ],
    ids=repr,
)
async def test_the_blocks_exception_keeps_its_identity_cause_and_context(
    error: BaseException,
) -> None:
    cause, context = KeyError("cause"), LookupError("context")
    error.__cause__, error.__context__ = cause, context

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(trio.sleep_forever)
        raise error

    raised = await _outcome(block)
    assert raised is error
    assert error.__cause__ is cause
    assert error.__context__ is context


async def test_the_blocks_exception_gets_no_added_context() -> None:
    error = ValueError("mine")

    async def block(nursery: trio.Nursery) -> None:
        raise error

    assert await _outcome(block) is error
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "error", [Bug("crash"), KeyboardInterrupt(), ExceptionGroup("two", [Bug(1), Bug(2)])], ids=repr
)
async def test_a_background_crash_ends_the_block_and_is_raised_alone(error: BaseException) -> None:
    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(_crash, error)
        await trio.sleep_forever()

    raised = await _outcome(block)
    assert raised is error or _members(raised) == _members(error)


async def test_a_crash_while_the_block_ends_is_raised() -> None:
    crash = Bug("crash")

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise crash

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()

    assert await _outcome(block) is crash


async def test_the_blocks_error_and_a_later_crash_are_raised_as_one_group() -> None:
    mine, crash = ValueError("mine"), Bug("crash")

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise crash

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        raise mine

    group = await _outcome(block)
    assert _members(group) == (mine, crash)


async def test_the_blocks_error_and_an_earlier_crash_are_raised_as_one_group() -> None:
    mine, crash = ValueError("mine"), Bug("crash")

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(_crash, crash)
        try:
            await trio.sleep_forever()
        finally:
            raise mine

    group = await _outcome(block)
    assert set(_members(group)) == {mine, crash}


async def test_a_background_keyboard_interrupt_is_raised_bare_despite_the_blocks_error() -> None:
    interrupt = KeyboardInterrupt()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise interrupt

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        raise ValueError("mine")

    assert await _outcome(block) is interrupt


async def test_an_outer_cancellation_reaches_the_outer_scope() -> None:
    with trio.CancelScope() as scope:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
        raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_an_outer_cancellation_of_only_background_tasks_reaches_the_outer_scope() -> None:
    scope = trio.CancelScope()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            # The block has ended and waits for this task.
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()

    with scope:
        async with open_background() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
        await trio.lowlevel.checkpoint()
        raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_the_error_of_a_cancelled_block_is_raised_alone() -> None:
    mine = ValueError("mine")
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="mine") as caught:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                raise mine
    assert caught.value is mine
    assert not scope.cancelled_caught


async def test_a_background_crash_during_cancellation_is_raised() -> None:
    crash = Bug("crash")

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise crash

    async def block(nursery: trio.Nursery) -> None:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.sleep_forever()

    raised: BaseException | None = None
    with trio.CancelScope() as scope:
        raised = await _outcome(block)
    assert raised is not None
    assert split_cancelled(raised)[1] is crash


async def test_a_keyboard_interrupt_with_a_crash_is_raised_bare() -> None:
    async def crash() -> None:
        raise ValueError("crash")

    with pytest.raises(KeyboardInterrupt):
        async with open_background() as nursery:
            nursery.start_soon(crash)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyboardInterrupt


async def test_a_crash_in_a_cancelled_block_is_raised_alone_in_any_order_of_tasks() -> None:
    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("crash")

    for _ in range(20):
        with pytest.raises(ValueError, match="crash"), trio.CancelScope() as scope:
            async with open_background() as nursery:
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
