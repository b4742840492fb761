"""Deterministic runs: with the same seed, every process takes the same steps."""

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
    """Like `trio.run`, but deterministic, on trio's mocked clock, which jumps whenever all tasks wait for it.

    Threads, sockets, processes and `random.Random` objects made without a seed are not deterministic.

    Args:
        main: The function to run.
        arguments: Its arguments.
        seed: Determines the order of tasks that are ready together, all ids, and all other randomness.
    """
    with deterministic(seed):
        return trio.run(main, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def deterministic(seed: int | str = 0) -> Generator[None]:
    """Make a `trio.run` on a mocked clock deterministic within the block. `run` does both."""
    # None of this is secret.
    order, identifiers = random.Random(f"order {seed}"), random.Random(f"identifiers {seed}")  # noqa: S311

    def now() -> datetime:
        return _BEGINNING + timedelta(seconds=trio.current_time())

    with (
        # trio has these private names for Hypothesis.
        mock.patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch("trio._core._run._r", order),
        # Ids, keys and masks come from these, through `uuid` and `secrets`.
        mock.patch.object(os, "urandom", identifiers.randbytes),
        mock.patch.object(random, "_urandom", identifiers.randbytes),
        mock.patch.object(wall_clock, "source", now),
    ):
        yield
