"""Deterministic runs: one seed gives the same order of tasks, ids and times."""

from __future__ import annotations

import os
import secrets
import uuid

import trio

from galaxy_trio._concurrency import wall_clock
from galaxy_trio.testing import run


async def _take_turns(seconds: float) -> list[object]:
    taken: list[object] = []

    async def task(number: int) -> None:
        for _ in range(5):
            taken.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(task, number)
    await trio.sleep(seconds)
    return [*taken, str(uuid.uuid4()), secrets.token_hex(8), os.urandom(4), wall_clock.timestamp()]


def test_same_seed_gives_the_same_run_and_another_seed_a_different_one() -> None:
    first = run(_take_turns, 3600.0, seed=1)
    assert run(_take_turns, 3600.0, seed=1) == first
    assert run(_take_turns, 3600.0, seed=2) != first
    assert first[-1] == "2026-01-01T01:00:00+00:00"


def test_determinism_ends_with_the_run() -> None:
    async def make_id() -> uuid.UUID:
        await trio.lowlevel.checkpoint()
        return uuid.uuid4()

    assert run(make_id) == run(make_id)
    assert uuid.uuid4() != uuid.uuid4()
    assert trio.run(make_id) != trio.run(make_id)
    assert wall_clock.now().year >= 2026
