"""The order in which ready nodes go to their devices."""

from __future__ import annotations

import gc
import weakref

from galaxy_trio.graph import Node
from galaxy_trio.graph.ready_queue import ReadyNode, ReadyQueue


def take_nodes(queue: ReadyQueue) -> list[ReadyNode]:
    taken: list[ReadyNode] = []
    while (ready := queue.take()) is not None:
        taken.append(ready)
    return taken


def take_all(queue: ReadyQueue) -> list[str]:
    return [ready.id for ready in take_nodes(queue)]


def test_highest_priority_goes_first_then_what_was_ready_first() -> None:
    queue = ReadyQueue()
    for node in (Node("a", "x"), Node("low", "x", priority=-1), Node("high", "x", priority=1), Node("b", "x")):
        queue.add(node)
    assert take_all(queue) == ["high", "a", "b", "low"]


def test_discarded_node_is_not_taken_and_may_come_back() -> None:
    queue = ReadyQueue()
    for name in "abc":
        queue.add(Node(name, "x"))
    queue.discard("a")
    queue.discard("a")
    queue.discard("unknown")
    queue.add(Node("a", "x"))
    assert take_all(queue) == ["b", "c", "a"]


def test_at_most_100_nodes_with_the_same_requirements_wait_together() -> None:
    queue = ReadyQueue()
    for number in range(103):
        queue.add(Node(f"n{number}", "x", device="d1"))
    queue.add(Node("other", "x", device="d2"))
    taken = take_nodes(queue)
    assert [ready.id for ready in taken] == [*(f"n{number}" for number in range(100)), "other"]
    for expected in ("n100", "n101", "n102"):
        queue.release(taken[0])
        assert take_all(queue) == [expected]
    queue.add(Node("n103", "x", device="d1"))
    assert take_all(queue) == []
    for ready in taken:
        queue.release(ready)


def test_node_of_a_higher_priority_does_not_wait_for_100_lower_ones_with_the_same_requirements() -> None:
    queue = ReadyQueue()
    for number in range(101):
        queue.add(Node(f"n{number}", "x", device="d1"))
    take_all(queue)
    queue.add(Node("urgent", "x", device="d1", priority=1))
    [urgent] = take_nodes(queue)
    assert urgent.id == "urgent"
    queue.release(urgent)
    assert take_all(queue) == []


def test_nodes_whose_queues_are_full_wait_in_their_old_order_and_delay_no_others() -> None:
    queue = ReadyQueue()
    for name in "abc":
        queue.add(Node(name, "x", device="d1"))
    first, second = queue.take(), queue.take()
    assert first is not None
    assert second is not None
    assert queue.refuse(first.requirements) is True
    assert queue.refuse(second.requirements) is False
    for ready in (second, first):
        queue.put_back(ready)
        queue.release(ready)
    queue.add(Node("other", "x", device="d2"))
    queue.add(Node("d", "x", device="d1"))
    assert take_all(queue) == ["other"]
    queue.discard("c")
    queue.accept(first.requirements)
    assert take_all(queue) == ["a", "b", "d"]


def test_parked_node_that_is_discarded_lets_the_next_one_go() -> None:
    queue = ReadyQueue()
    for number in range(102):
        queue.add(Node(f"n{number}", "x"))
    taken = take_nodes(queue)
    queue.discard("n100")
    queue.release(taken[0])
    assert take_all(queue) == ["n101"]


def test_node_that_is_added_twice_is_taken_once_and_not_after_it_is_discarded() -> None:
    queue = ReadyQueue()
    for name in "abab":
        queue.add(Node(name, "x"))
    queue.discard("a")
    assert take_all(queue) == ["b"]


def test_nothing_is_left_of_nodes_that_were_taken_and_released() -> None:
    def where(_: object) -> bool:
        return True

    queue = ReadyQueue()
    for number in range(102):
        queue.add(Node(f"n{number}", "x", where=where))
    requirements = weakref.ref(where)
    del where
    taken = take_nodes(queue)
    while taken:
        queue.release(taken.pop())
        taken += take_nodes(queue)
    gc.collect()
    assert requirements() is None
