"""A token is read in a thread."""

from __future__ import annotations

import math
import threading

import trio

from galaxy_trio._connection.client_link import read_token
from tests.support.waiting import until


def test_threads_that_outlive_a_run_do_not_reduce_the_threads_of_the_next() -> None:
    hanging = threading.Event()
    begun: list[str] = []

    def hang() -> str:
        begun.append("thread")
        hanging.wait()
        return "late"

    async def give_up() -> None:
        async with trio.open_nursery() as nursery:
            before = len(begun)
            nursery.start_soon(read_token, hang, math.inf)
            await until(lambda: len(begun) > before)
            nursery.cancel_scope.cancel()

    async def read() -> str | None:
        with trio.fail_after(60):
            return await read_token(lambda: "token", math.inf)

    try:
        # More than the limit of threads.
        for _ in range(10):
            trio.run(give_up)
    finally:
        hanging.set()
    assert trio.run(read) == "token"
