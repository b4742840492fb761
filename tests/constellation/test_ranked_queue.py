"""Items by rank, against a sorted list; a bounded memory, and few comparisons."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.constellation.ranked_queue import RankedQueue, next_rank

_COUNT = 100_000


class CountedRank(tuple[int, int]):
    """A rank that counts its comparisons."""

    __slots__ = ()
    comparisons = 0

    def __lt__(self, other: tuple[int, ...], /) -> bool:
        CountedRank.comparisons += 1
        return super().__lt__(other)


def test_highest_priority_is_first_then_what_was_accepted_first() -> None:
    queue = RankedQueue[str]()
    for name, priority in (("a", 0), ("low", -100), ("high", 100), ("b", 0), ("higher than 0", 1)):
        queue.add(next_rank(priority), name)
    assert list(queue) == ["high", "higher than 0", "a", "b", "low"]
    assert [queue.pop() for _ in range(len(queue))] == ["high", "higher than 0", "a", "b", "low"]
    assert (queue.first, queue.first_rank) == (None, None)
    with pytest.raises(IndexError):
        queue.pop()


@given(
    st.lists(st.tuples(st.sampled_from(["add", "add", "discard", "add again", "pop", "clear"]), st.integers(0, 400)))
)
def test_any_sequence_agrees_with_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    queue = RankedQueue[int]()
    model: list[tuple[tuple[int, int], int]] = []
    removed: list[tuple[tuple[int, int], int]] = []
    numbers = itertools.count()
    for what, which in steps:
        match what:
            case "add":
                entry = next_rank(which % 5 - 2), next(numbers)
                queue.add(*entry)
                model.append(entry)
            case "add again" if removed:
                entry = removed.pop(which % len(removed))
                queue.add(*entry)
                model.append(entry)
            case "discard" if model:
                entry = model.pop(which % len(model))
                queue.discard(entry[0], -1)
                queue.discard(*entry)
                queue.discard(*entry)
                removed.append(entry)
            case "pop" if model:
                entry = min(model)
                model.remove(entry)
                assert queue.pop() == entry[1]
            case "clear" if which % 20 == 0:
                queue.clear()
                model.clear()
            case _:
                pass
        model.sort()
        assert len(queue) == len(model)
        assert list(queue) == [item for _, item in model]
        assert (queue.first_rank, queue.first) == (model[0] if model else (None, None))


def test_100_000_items_take_few_comparisons_each() -> None:
    queue = RankedQueue[int]()
    ranks = [CountedRank(next_rank(number % 201 - 100)) for number in range(_COUNT)]
    CountedRank.comparisons = 0
    for number, rank in enumerate(ranks):
        queue.add(rank, number)
        assert queue.first_rank is not None
    for number, rank in list(enumerate(ranks))[::2]:
        queue.discard(rank, number)
    while queue:
        queue.pop()
    assert CountedRank.comparisons / _COUNT < 60


def test_removed_items_leave_nothing_behind_in_a_queue_whose_first_item_stays() -> None:
    queue = RankedQueue[int]()
    queue.add(next_rank(100), 0)
    for number in range(10_000):
        rank = next_rank(0)
        queue.add(rank, number)
        queue.discard(rank, number)
    assert len(queue) == 1
    assert len(queue._heap) < 100


def test_item_that_took_the_rank_of_another_one_stays_when_that_one_is_removed() -> None:
    queue = RankedQueue[str]()
    rank = next_rank(0)
    queue.add(rank, "old")
    queue.add(rank, "new")
    queue.discard(rank, "old")
    assert list(queue) == ["new"]
    assert queue.pop() == "new"
