"""The benchmarks of task graphs run, with small graphs. What they measure depends on the machine, and is not asserted."""

from __future__ import annotations

from .graph_delays import measure_makespan, measure_stall
from .graph_scheduling import measure_scheduling
from .graph_steps import measure_edits, measure_steps


def test_scheduling_is_measured_without_devices_and_over_connections() -> None:
    for over in ("nothing", "devices"):
        measured = measure_scheduling(3, 2, 1, over)
        assert (measured.nodes, measured.edges) == (6, 8)
        assert measured.run > 0


def test_edits_and_steps_are_measured() -> None:
    assert all(start.wall > 0 for start in measure_edits(3, 2, 1))
    assert all(step.wall > 0 for step in measure_steps(3, 2))


def test_on_a_clock_that_jumps_a_plan_takes_as_long_as_its_longest_path() -> None:
    assert measure_makespan("mocked", 2) == 1


def test_no_edit_hold_or_planner_delays_nodes_that_do_not_depend_on_it() -> None:
    assert [measure_stall(disturbance) for disturbance in ("edit", "hold", "planner")] == [0, 0, 0]
