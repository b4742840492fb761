"""Runs that repeat themselves exactly: with one seed the same in each process, step by step."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple
from unittest import mock

import trio
import trio.testing

from galaxy_trio._concurrency import wall_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)


def run(main: Callable[[*Ts], Awaitable[T]], *arguments: *Ts, seed: int | str = 0) -> T:
    """Like `trio.run`, in no time, and the same each time: on trio's mocked clock, which jumps whenever all tasks wait for it.

    Args:
        main: The function to run.
        arguments: Its arguments.
        seed: Decides on the order of tasks that could run at the same time, on all ids, and on what else is left to chance.

    What it cannot decide on are threads, sockets and processes, and generators of `random.Random` that were made without a seed.
    """
    with deterministic(seed):
        return trio.run(main, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def deterministic(seed: int | str = 0) -> Generator[None]:
    """Let a `trio.run` within the block, on a mocked clock, be the same each time with the same seed; `run` does both."""
    # None of this is a secret.
    order, identifiers = random.Random(f"order {seed}"), random.Random(f"identifiers {seed}")  # noqa: S311

    def now() -> datetime:
        return _BEGINNING + timedelta(seconds=trio.current_time())

    with (
        # trio has these for Hypothesis, under names of its own.
        mock.patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch("trio._core._run._r", order),
        # Ids, keys and masks are made of these, by way of `uuid` and `secrets`.
        mock.patch.object(os, "urandom", identifiers.randbytes),
        mock.patch.object(random, "_urandom", identifiers.randbytes),
        mock.patch.object(wall_clock, "source", now),
    ):
        yield
