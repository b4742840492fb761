"""Problems that others can cause at any rate fill no log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from galaxy_trio._concurrency.limited_log import LimitedLog, in_one_line

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

LOGGER = logging.getLogger("galaxy_trio.test")


async def test_problem_is_logged_and_further_ones_are_counted_for_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = LimitedLog(LOGGER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.log_counts)
        await trio.sleep(0.5)
        for number in range(100):
            log.problem("problem %s", number)
            await trio.sleep(1)
        more = "more problems like the last one not logged"
        assert caplog.messages == ["problem 0", f"59 {more}", "problem 60"]
        # The flood has ended.
        await trio.sleep(180)
        assert caplog.messages[3:] == [f"39 {more}"]
        nursery.cancel_scope.cancel()


async def test_counts_are_logged_with_the_next_problem_if_no_task_logs_them(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = LimitedLog(LOGGER)
    for _ in range(3):
        log.problem("a problem")
    await trio.sleep(61)
    log.problem("another one")
    assert caplog.messages == ["a problem", "2 more problems like the last one not logged", "another one"]


async def test_traceback_is_logged_only_if_it_is_given(caplog: pytest.LogCaptureFixture) -> None:
    await trio.lowlevel.checkpoint()
    LimitedLog(LOGGER).problem("a problem")
    assert "Traceback" not in caplog.text
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        LimitedLog(LOGGER).problem("a problem", error=error)
    assert "RuntimeError: a bug" in caplog.text


def test_error_is_described_in_one_short_line() -> None:
    assert in_one_line(ValueError("a\n  b\r")) == "ValueError: a b"
    assert in_one_line(ExceptionGroup("", [ExceptionGroup("", [ValueError("x" * 1000)]), KeyError()])) == (
        "ValueError: " + "x" * 188
    )
