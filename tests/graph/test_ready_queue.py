"""The order in which ready nodes go to their devices."""

from __future__ import annotations

from galaxy_trio.graph import Node
from galaxy_trio.graph.ready_queue import ReadyQueue


def take_all(queue: ReadyQueue) -> list[str]:
    taken: list[str] = []
    while (item := queue.take()) is not None:
        taken.append(item[0])
    return taken


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
    taken = take_all(queue)
    assert taken == [*(f"n{number}" for number in range(100)), "other"]
    queue.add(Node("urgent", "x", device="d1", priority=1))
    assert take_all(queue) == []
    requirements = ("d1", None, frozenset[str](), None)
    for expected in ("urgent", "n100", "n101", "n102"):
        queue.release(requirements)
        assert take_all(queue) == [expected]


def test_parked_node_that_is_discarded_lets_the_next_one_go() -> None:
    queue = ReadyQueue()
    for number in range(102):
        queue.add(Node(f"n{number}", "x"))
    take_all(queue)
    queue.discard("n100")
    queue.release((None, None, frozenset[str](), None))
    assert take_all(queue) == ["n101"]


def test_node_that_is_added_twice_is_taken_once_and_not_after_it_is_discarded() -> None:
    queue = ReadyQueue()
    for name in "abab":
        queue.add(Node(name, "x"))
    queue.discard("a")
    assert take_all(queue) == ["b"]
