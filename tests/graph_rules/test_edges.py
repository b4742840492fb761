"""Which edges hold after which ends, and what a skip is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.graph import Comparison, Condition, Edge, When

from .support.running import plan

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

    from .support.running import RunningGraph

OK = Condition("/ok", "eq", value=True)
HOLDING = {
    "completed": {"success", "condition", "end"},
    "failed": {"failure", "end"},
    "lost": {"failure", "end"},
    "cancelled": {"end"},
    "skipped": {"end"},
}


async def test_edge_holds_after_its_ends_and_skips_its_target_after_the_others(graph: RunningGraph) -> None:
    targets = {"s": When.SUCCESS, "f": When.FAILURE, "c": When.CONDITION, "e": When.END}
    edges = [
        Edge("a", target, when, condition=OK if when is When.CONDITION else None) for target, when in targets.items()
    ]
    for end, holding in HOLDING.items():
        await graph.start(plan("xasfce", "xa", *edges))
        await graph.bring_to("x", "failed" if end == "skipped" else "completed")
        # A result of a failure would meet the condition as well.
        await graph.bring_to("a", end, result={"ok": True})
        expected = {target: "running" if when.value in holding else "skipped" for target, when in targets.items()}
        await graph.reach(x="failed" if end == "skipped" else "completed", a=end, **expected)
        await graph.cancel()


CONDITIONS: dict[str, tuple[str, Comparison, JSON, bool]] = {
    "a": ("/code", "eq", 3.0, True),
    "b": ("/code", "in", ["3", 4], False),
    "c": ("/code", "lt", "9", False),
    "d": ("/missing", "ne", 3, False),
    "e": ("/list/1/x", "truthy", None, True),
    "f": ("", "exists", None, True),
    "g": ("/a~1b", "gt", "ant", True),
    "h": ("/null", "truthy", None, False),
}


async def test_condition_compares_a_place_of_the_result_and_is_not_met_by_what_is_missing_or_incomparable(
    graph: RunningGraph,
) -> None:
    edges = [
        Edge("x", name, When.CONDITION, condition=Condition(at, test, value))
        for name, (at, test, value, _) in CONDITIONS.items()
    ]
    # What meets its condition waits.
    await graph.start(plan(f"xy{''.join(CONDITIONS)}", *edges, *[Edge("y", name) for name in CONDITIONS]))
    await graph.complete("x", result={"code": 3, "list": [0, {"x": 1}], "a/b": "bee", "null": None})
    expected = {name: "waiting" if is_met else "skipped" for name, (*_, is_met) in CONDITIONS.items()}
    await graph.reach(x="completed", y="running", **expected)


async def test_skip_passes_along_and_branches_join_again_after_it(graph: RunningGraph) -> None:
    edges: list[str | Edge] = [Edge("a", "b", When.CONDITION, condition=OK), "bc", "ad", Edge("c", "e", When.END), "de"]
    await graph.start(plan("abcde", *edges))
    await graph.complete("a", result={"ok": False})
    await graph.reach(a="completed", b="skipped", c="skipped", d="running", e="waiting")
    await graph.complete("d", "e")
    await graph.end("completed")


async def test_node_is_skipped_by_the_first_edge_that_does_not_hold(graph: RunningGraph) -> None:
    await graph.start(plan("abc", "ac", "bc"))
    await graph.fail("a")
    await graph.reach(a="failed", b="running", c="skipped")
    await graph.complete("b")
    await graph.reach(a="failed", b="completed", c="skipped")


STATES = {
    "completed completed": "completed",
    "completed skipped": "completed",
    "completed failed": "partially failed",
    "completed lost": "partially failed",
    "completed cancelled": "partially failed",
    "failed skipped": "failed",
    "lost lost": "failed",
    "cancelled cancelled": "failed",
}


async def test_state_of_a_graph_follows_from_those_of_its_nodes(graph: RunningGraph) -> None:
    for ends, state in STATES.items():
        first, second = ends.split()
        edges = [Edge("a", "b", When.FAILURE if first == "completed" else When.SUCCESS)]
        await graph.start(plan("ab", *(edges if second == "skipped" else [])))
        await graph.bring_to("a", first)
        await graph.bring_to("b", second)
        await graph.reach(a=first, b=second)
        await graph.end(state)
