"""Attempts of nodes: when another one follows, and what may happen before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Edge, Node, When

from .support.running import plan

if TYPE_CHECKING:
    from trio.testing import MockClock

    from .support.running import RunningGraph


async def test_failed_node_is_tried_again_after_waits_that_double_as_a_task_with_a_fresh_id(
    graph: RunningGraph, clock: MockClock
) -> None:
    await graph.start(plan([Node("a", "a", retries=2, backoff=20), *plan("b").nodes], "ab"))
    ids = set[str | None]()
    # What a busy machine takes counts as well.
    for early, late in ((10, 11), (25, 16)):
        await graph.fail("a")
        view = await graph.reach(a="ready", b="waiting")
        assert view.snapshot.node("a").error == "it broke"
        clock.jump(early)
        ids.add((await graph.reach(a="ready", b="waiting")).snapshot.node("a").task_id)
        clock.jump(late)
        await graph.reach(a="running", b="waiting")
    await graph.fail("a", why="for good")
    view = await graph.reach(a="failed", b="skipped")
    node = view.snapshot.node("a")
    assert (node.attempt, node.error, len(ids | {node.task_id})) == (3, "for good", 3)
    assert graph.tasks.started == ["a"] * 3


async def test_node_that_completes_in_a_later_attempt_has_completed(graph: RunningGraph) -> None:
    await graph.start(plan([Node("a", "a", retries=5, backoff=0), *plan("b").nodes], "ab"))
    await graph.fail("a", result="part")
    await graph.complete("a", result="whole")
    view = await graph.reach(a="completed", b="running")
    node = view.snapshot.node("a")
    assert (node.attempt, node.error) == (2, None)
    assert '"result": "whole", "error": null' in graph.tasks.texts["b"]


async def test_lost_node_is_tried_again_only_if_it_may_run_twice(graph: RunningGraph) -> None:
    await graph.start(
        plan(
            [
                Node("a", "a", device="d1", retries=3),
                Node("b", "b", device="d2", retries=1, backoff=0, retry_lost=True),
                Node("c", "c", device="d3", retry_lost=True),
            ]
        )
    )
    for name in "abc":
        await graph.lose(name)
    view = await graph.reach(a="lost", b="running", c="lost")
    assert [view.snapshot.node(name).attempt for name in "abc"] == [1, 2, 1]
    await graph.complete("b")
    await graph.end("partially failed")


async def test_timeout_of_a_node_is_a_failure_and_stops_it(graph: RunningGraph, clock: MockClock) -> None:
    await graph.start(plan([Node("a", "a", timeout=5), *plan("bc").nodes], Edge("a", "b", When.FAILURE), "ac"))
    await graph.tasks.wait_begun("a")
    clock.jump(6)
    view = await graph.reach(a="failed", b="running", c="skipped")
    assert "within 5 s" in str(view.snapshot.node("a").error)
    assert graph.tasks.stopped == ["a"]


async def test_node_that_waits_for_its_next_attempt_can_be_replaced_and_goes_on_waiting(
    graph: RunningGraph, clock: MockClock
) -> None:
    await graph.start(plan([Node("a", "a", retries=1, backoff=20)]))
    await graph.fail("a")
    await graph.reach(a="ready")
    await graph.edit(replace=(Node("a", "other"),))
    clock.jump(10)
    await graph.reach(a="ready")
    clock.jump(11)
    await graph.reach(a="running")
    # What it was replaced by has no retries.
    await graph.fail("other")
    assert (await graph.reach(a="failed")).snapshot.node("a").attempt == 2


async def test_node_that_waits_for_another_one_before_its_next_attempt_goes_on_waiting_for_both(
    graph: RunningGraph, clock: MockClock
) -> None:
    await graph.start(plan([Node("a", "a", retries=1, backoff=20), *plan("b").nodes]))
    await graph.fail("a")
    await graph.reach(a="ready", b="running")
    await graph.edit(connect=(Edge("b", "a"),))
    await graph.reach(a="waiting", b="running")
    await graph.complete("b")
    await graph.reach(a="ready", b="completed")
    clock.jump(10)
    await graph.reach(a="ready", b="completed")
    clock.jump(11)
    await graph.reach(a="running", b="completed")


async def test_node_that_waits_for_its_next_attempt_can_be_cancelled(graph: RunningGraph, clock: MockClock) -> None:
    await graph.start(plan([Node("a", "a", retries=1, backoff=20), *plan("b").nodes], Edge("a", "b", When.END)))
    await graph.fail("a")
    await graph.reach(a="ready", b="waiting")
    await graph.cancel("a")
    await graph.reach(a="cancelled", b="running")
    clock.jump(21)
    await graph.complete("b")
    await graph.end("partially failed")
    assert graph.tasks.started == ["a", "b"]


async def test_node_that_is_retried_does_not_wait_for_the_attempt_that_was_to_follow(graph: RunningGraph) -> None:
    await graph.start(plan([Node("a", "a", retries=1, backoff=300)]))
    await graph.fail("a")
    await graph.reach(a="ready")
    await graph.cancel("a")
    await graph.retry("a")
    await graph.reach(a="running")
