"""The simulated planner: it thinks, and returns edits, some of which must be refused."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from tests.simulation.graphs.edits import apply_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from galaxy_trio.errors import GraphError
    from galaxy_trio.graph import GraphEdit, GraphSnapshot, NodeEnded
    from tests.simulation.graphs.edits import EditMaker
    from tests.simulation.graphs.model import Change
    from tests.simulation.graphs.plan import PlannerPlan
    from tests.simulation.graphs.referee import Referee

_TRIES = 4


class Thinking:
    """The planner of a graph.

    Args:
        plan: What it does.
        seed: Determines the rest.
        maker: Makes its edits.
        referee: Returns the referee of the graph.
    """

    def __init__(self, plan: PlannerPlan, seed: int, maker: EditMaker, referee: Callable[[], Referee]) -> None:
        self._plan = plan
        self._random = Random(f"planner {seed}")
        self._maker = maker
        self._referee = referee
        self._tries = 0
        self._calm = False

    def become_calm(self) -> None:
        """Edit no more, so that the graph can end."""
        self._calm = True

    async def __call__(
        self, ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None
    ) -> Callable[[GraphEdit], None] | None:
        """Think, and return an edit or None."""
        referee, random, plan = self._referee(), self._random, self._plan
        referee.sync()
        self._begin(referee, ends, snapshot, error)
        try:
            await trio.sleep(random.choice(plan.thinks))
            # Its end may come in the step in which it has thought enough.
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            referee.sync()
            referee.failures += not referee.planner_is_stopped
            referee.release_planned()
            raise
        referee.sync()
        if self._calm or random.random() * 100 >= plan.edits:
            referee.release_planned()
            return None
        refused = random.random() * 100 < plan.refused
        changes = (self._maker.refused if refused else self._maker.accepted)(random, referee.model)
        return lambda edit: self._change(edit, changes)

    def _begin(
        self, referee: Referee, ends: Sequence[NodeEnded], snapshot: GraphSnapshot, error: GraphError | None
    ) -> None:
        if error is None:
            self._tries = 0
            if referee.thinking:
                referee.report("the planner is called although it thinks already")
            referee.thinking, referee.waiting = referee.waiting, []
        self._tries += 1
        expected = {node_id: referee.model.states.nodes[node_id] for node_id, _ in referee.thinking}
        if {end.node_id: end.state for end in ends} != expected or len(ends) != len(referee.thinking):
            referee.report(f"the planner is called with {ends} instead of {expected}")
        if snapshot != referee.run.snapshot():
            referee.report("the planner has another snapshot")

    def _change(self, edit: GraphEdit, changes: Sequence[Change]) -> None:
        referee = self._referee()
        referee.sync()
        edited = referee.model.edited(changes)
        if edited is None:
            if self._tries == _TRIES:
                referee.failures += 1
                referee.release_planned()
        elif edited.version > referee.model.version:
            referee.expect_edit(edited, referee.release_planned)
        else:
            referee.release_planned()
        apply_all(edit, changes)
