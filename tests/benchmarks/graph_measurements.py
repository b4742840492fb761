"""The measurements of task graphs, each of which runs in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .graph_delays import measure_makespan, measure_stall
from .graph_scheduling import measure_scheduling
from .graph_steps import measure_edits, measure_steps

if TYPE_CHECKING:
    from collections.abc import Callable

MEASUREMENTS: Final[dict[str, Callable[..., object]]] = {
    "scheduling": measure_scheduling,
    "edits": measure_edits,
    "steps": measure_steps,
    "makespan": measure_makespan,
    "stall": measure_stall,
}
