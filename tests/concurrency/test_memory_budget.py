"""The memory budget of a group of connections, without connections."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio._concurrency.memory_budget import MemoryBudget, MemoryShare


def _open_shares(budget: MemoryBudget, count: int) -> tuple[list[MemoryShare], list[MemoryShare]]:
    """Open shares, and return them with the list of those that were closed for memory, in their order."""
    shares = [budget.open_share() for _ in range(count)]
    closed: list[MemoryShare] = []
    for share in shares:
        share.registered = True
        share.on_shortage = partial(closed.append, share)
    return shares, closed


def test_what_shares_hold_adds_up_until_they_are_closed() -> None:
    budget = MemoryBudget(1000)
    (one, other), closed = _open_shares(budget, 2)
    one.add(100)
    other.set_incoming(50)
    other.set_incoming(70)
    with other.holding(30):
        assert (one.held, other.held, budget.held) == (100, 100, 200)
    assert budget.held == 170
    one.close()
    one.add(-100)
    assert (budget.held, closed) == (70, [])
    one.close()
    assert budget.held == 70


def test_at_the_limit_the_heaviest_connections_are_closed_until_three_quarters_are_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = MemoryBudget(1000)
    shares, closed = _open_shares(budget, 4)
    for share, size in zip(shares, (300, 150, 100, 400), strict=True):
        share.add(size)
    assert (closed, budget.held) == ([], 950)
    shares[2].add(50)
    assert (closed, budget.held, budget.closed) == ([shares[3]], 600, 1)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "a connection that holds 400 bytes: all connections hold 1000 together, of 1000" in record.getMessage()


def test_connections_without_a_registration_are_closed_first() -> None:
    budget = MemoryBudget(1000)
    shares, closed = _open_shares(budget, 4)
    shares[1].registered = shares[3].registered = False
    for share, size in zip(shares, (300, 290, 410), strict=False):
        share.add(size)
    # The last one holds nothing, so closing it would release nothing.
    assert closed == [shares[1]]
    shares[0].add(290)
    assert closed == [shares[1], shares[0]]


def test_a_single_connection_is_closed_at_the_limit() -> None:
    budget = MemoryBudget(1000)
    [share], closed = _open_shares(budget, 1)
    share.add(999)
    assert not share.has_too_much
    share.add(1)
    assert (closed, budget.held) == ([share], 0)


async def test_a_connection_with_more_than_its_part_waits_while_memory_is_short(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = MemoryBudget(1000)
    (heavy, other, light), closed = _open_shares(budget, 3)
    heavy.add(400)
    other.add(300)
    assert not heavy.has_too_much
    light.add(51)
    assert [share.has_too_much for share in (heavy, other, light)] == [True, False, False]
    with trio.fail_after(1):
        await light.wait_while_too_much()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heavy.wait_while_too_much)
        await trio.sleep(4)
        assert nursery.child_tasks
        other.add(-100)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
    assert closed == []


async def test_after_5_s_without_progress_the_heaviest_connection_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = MemoryBudget(1000)
    (heavy, heaviest), closed = _open_shares(budget, 2)
    start = trio.current_time()
    heaviest.add(850 - 510)
    heavy.add(505)
    await heavy.wait_while_too_much()
    assert closed == [heavy]
    assert trio.current_time() - start == pytest.approx(5)
    assert budget.held == 340


async def test_progress_gives_5_s_more(autojump_clock: trio.testing.MockClock) -> None:
    budget = MemoryBudget(1000)
    (heavy, other), closed = _open_shares(budget, 2)
    heavy.add(510)
    other.add(400)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heavy.wait_while_too_much)
        for _ in range(3):
            await trio.sleep(4.9)
            other.add(-20)
        assert closed == []
    assert closed == [heavy]
    assert trio.current_time() - start > 15


async def test_closing_a_connection_wakes_those_that_wait(autojump_clock: trio.testing.MockClock) -> None:
    budget = MemoryBudget(1000)
    (heavy, other), _ = _open_shares(budget, 2)
    heavy.add(600)
    other.add(300)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heavy.wait_while_too_much)
        await trio.testing.wait_all_tasks_blocked()
        other.close()
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["add", "release", "close", "incoming"]), st.integers(0, 400))
    )
)
def test_the_sum_is_what_the_open_shares_hold_and_stays_below_the_limit(steps: list[tuple[int, str, int]]) -> None:
    budget = MemoryBudget(1000)
    shares, closed = _open_shares(budget, 5)
    gone: set[int] = set()
    for number, what, size in steps:
        share = shares[number]
        match what:
            case "add":
                share.add(size)
            case "release":
                share.add(-min(size, share.held))
            case "incoming" if share not in closed and number not in gone:
                share.set_incoming(size)
            case "close":
                share.close()
                gone.add(number)
            case _:
                pass
        open_ones = [share for at, share in enumerate(shares) if at not in gone and share not in closed]
        assert budget.held == sum(share.held for share in open_ones) < budget.limit
