"""The threads for one purpose have a limiter in each run of trio."""

from __future__ import annotations

import trio

from galaxy_trio._concurrency.thread_limit import ThreadLimit


def test_a_run_of_trio_has_one_limiter_and_another_run_has_another() -> None:
    limit = ThreadLimit("a test", 2)

    async def limiter() -> trio.CapacityLimiter:
        await trio.lowlevel.checkpoint()
        assert limit.get() is limit.get()
        return limit.get()

    first, second = trio.run(limiter), trio.run(limiter)
    assert first is not second
    assert (first.total_tokens, second.total_tokens) == (2, 2)


async def test_two_purposes_have_different_limiters() -> None:
    assert ThreadLimit("one", 1).get() is not ThreadLimit("other", 1).get()
