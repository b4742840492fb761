"""The users of a graph: they edit, cancel, retry and hold it, and wait for it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from galaxy_trio.errors import NoSuchNode, NotEditable, PlannerFailed
from galaxy_trio.graph.state_machine import ENDED, RETRYABLE, NodeState
from tests.graph.support.naive_graph import Refused
from tests.simulation.graphs.edits import edit

if TYPE_CHECKING:
    from tests.simulation.graphs.edits import EditMaker
    from tests.simulation.graphs.model import Change
    from tests.simulation.graphs.plan import Action
    from tests.simulation.graphs.referee import Referee


class Users:
    """Carry out the actions of a plan on a running graph.

    Args:
        seed: Determines what the actions concern.
        referee: Follows the graph.
        maker: Makes edits.
        nursery: Runs the holds and waits.
    """

    def __init__(self, seed: int, referee: Referee, maker: EditMaker, nursery: trio.Nursery) -> None:
        self._seed = seed
        self._referee = referee
        self._maker = maker
        self._nursery = nursery

    def act(self, action: Action) -> None:
        """Carry out an action, or begin it if it takes time."""
        random = Random(f"action {self._seed} {action.number}")
        referee = self._referee
        referee.sync()
        if referee.off:
            return
        referee._world.journal.write("user", action.kind, "", action.number)
        nodes = list(referee.model.nodes)
        match action.kind:
            case "edit":
                self._edit(self._maker.accepted(random, referee.model))
            case "refused edit":
                if random.random() < 0.2:
                    self._edit(self._maker.accepted(random, referee.model), raises=True)
                else:
                    self._edit(self._maker.refused(random, referee.model))
            case "outdated edit":
                self._edit(self._maker.accepted(random, referee.model), outdated=True)
            case "cancel":
                self._cancel(self._choose(random, {NodeState.RUNNING, NodeState.READY}))
            case "cancel graph":
                self._cancel_all()
            case "retry":
                self._retry(self._choose(random, set(RETRYABLE)))
            case "hold" if nodes:
                self._nursery.start_soon(
                    self._hold, [random.choice(nodes) for _ in range(random.randint(1, 4))], action
                )
            case "refused hold" if nodes:
                self._hold_nothing(random.choice(nodes))
            case "wait":
                self._nursery.start_soon(self.wait)
            case _:
                pass

    def _edit(self, changes: list[Change], *, outdated: bool = False, raises: bool = False) -> None:
        for change in changes:
            self._referee._world.journal.write("user", "changes", "", change)
        edit(self._referee, changes, outdated=outdated, raises=raises)

    def _choose(self, random: Random, states: set[NodeState]) -> str:
        """Choose a node, most often in one of some states; at times one that is not there."""
        nodes = self._referee.model.states.nodes
        wanted = [node_id for node_id, state in nodes.items() if state in states]
        if wanted and random.random() < 0.8:
            return random.choice(wanted)
        return random.choice([*nodes, "nowhere"])

    def _cancel(self, node_id: str) -> None:
        referee, model = self._referee, self._referee.model
        state = model.states.nodes.get(node_id)
        if state is not None and state not in ENDED:
            model.nodes[node_id].cancelling = True
        try:
            referee.run.cancel(node_id)
        except NoSuchNode as error:
            if state is not None:
                referee.report(f"cancelling {node_id} was refused: {error}")
        else:
            if state is None:
                referee.report("a node that is not there was cancelled")
        referee.sync(compare=True)
        if state is not None and model.states.nodes[node_id] not in (*ENDED, NodeState.RUNNING):
            referee.report(f"{node_id} was {state}, and is not cancelled")

    def _cancel_all(self) -> None:
        referee, model = self._referee, self._referee.model
        if model.has_ended and not referee.waiting and not referee.thinking:
            # A graph that has ended stays as it is.
            referee.run.cancel()
            referee.sync(compare=True)
            return
        referee.expect_cancellation()
        for node_id, state in model.states.nodes.items():
            model.nodes[node_id].cancelling |= state not in ENDED
        referee.run.cancel()
        referee.sync(compare=True)
        for node_id, state in model.states.nodes.items():
            if state not in (*ENDED, NodeState.RUNNING):
                referee.report(f"{node_id} is {state} in a graph that was cancelled")

    def _retry(self, node_id: str) -> None:
        referee, model = self._referee, self._referee.model
        before = referee.run.snapshot()
        planned = node_id in {each for each, _ in (*referee.waiting, *referee.thinking)}
        try:
            if planned or node_id not in model.nodes:
                raise Refused
            model.states.retry(node_id)
            accepted = True
        except Refused:
            accepted = False
        else:
            node = model.nodes[node_id]
            node.result = node.error = None
            node.not_before, node.cancelling = 0.0, False
            model.cancelled = False
        try:
            referee.run.retry(node_id)
        except (NotEditable, NoSuchNode) as error:
            if accepted:
                referee.report(f"retrying {node_id} was refused: {error}")
            if referee.run.snapshot() != before:
                referee.report(f"retrying {node_id} was refused, and changed the graph: {error}")
        else:
            if not accepted:
                referee.report(f"retrying {node_id} was accepted")
        referee.sync(compare=True)

    async def _hold(self, node_ids: list[str], action: Action) -> None:
        referee = self._referee
        referee.sync()
        if any(node_id not in referee.model.nodes for node_id in node_ids):
            return
        held = referee.model.hold(node_ids)
        with referee.run.hold(*node_ids):
            try:
                referee.sync(compare=True)
                await trio.sleep(action.seconds)
            finally:
                # The package releases them in the same step.
                referee.sync()
                referee.model.release(held)
        referee.sync(compare=True)

    def _hold_nothing(self, node_id: str) -> None:
        referee = self._referee
        try:
            with referee.run.hold(node_id, "nowhere"):
                referee.report("a node that is not there was held")
        except NoSuchNode:
            pass
        referee.sync(compare=True)

    async def wait(self) -> None:
        """Wait for the end of the graph, and check its result. An error of the planner is reported once."""
        referee = self._referee
        result = None
        while result is None:
            try:
                result = await referee.run.wait()
            except PlannerFailed as error:
                referee.sync()
                if not referee.failures:
                    referee.report(f"the planner did not fail: {error}")
                referee.failures = 0
        referee.sync()
        if referee.off:
            return
        expected = {node_id: state.value for node_id, state in referee.model.states.nodes.items()}
        found = {node_id: node.state.value for node_id, node in result.results.items()}
        if (result.state, found) != (referee.model.state, expected):
            referee.report(f"the result is {result.state}, {found} instead of {referee.model.state}, {expected}")
        if not referee.model.has_ended or referee.waiting or referee.thinking:
            referee.report("a graph that goes on has a result")
