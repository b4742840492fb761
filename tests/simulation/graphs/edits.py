"""Random edits of a graph, of which the model knows whether they must be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio.errors import GraphError, VersionConflict
from tests.simulation.graphs.model import UNSTARTED, Change
from tests.simulation.graphs.planner import make_edge, make_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from galaxy_trio.graph import GraphEdit
    from tests.simulation.graphs.model import Model
    from tests.simulation.graphs.referee import Referee
    from tests.simulation.plan import DevicePlan

_MAX_NODES = 60


class _Raised(Exception):
    """An edit raised it."""


def raise_at_the_end(_: GraphEdit) -> None:
    """Raise an exception, as a user's edit may."""
    raise _Raised


def apply_all(edit: GraphEdit, changes: Sequence[Change]) -> None:
    """Make changes with the package."""
    for change in changes:
        change.apply(edit)


class EditMaker:
    """Makes random changes.

    Args:
        devices: The devices for new nodes.
    """

    def __init__(self, devices: Sequence[DevicePlan]) -> None:
        self._devices = devices
        self._count = 0

    def _new_name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def accepted(self, random: Random, model: Model) -> list[Change]:
        """Make changes that must be accepted, if that is found soon."""
        changes: list[Change] = []
        for _ in range(random.randint(1, 4)):
            for _ in range(5):
                change = self._change(random, model, changes)
                if model.edited([*changes, change]) is not None:
                    changes.append(change)
                    break
        return changes

    def refused(self, random: Random, model: Model) -> list[Change]:
        """Make changes that must be refused, if that is found soon: of one that is good, a part would remain."""
        changes = self.accepted(random, model)
        for _ in range(10):
            bad = [*changes, self._bad_change(random, model)]
            random.shuffle(bad)
            if model.edited(bad) is None:
                return bad
        return [*changes, Change("connect", edge=make_edge(random, "nowhere", "nowhere", None))]

    def _change(self, random: Random, model: Model, others: Sequence[Change]) -> Change:
        added = [change.node.id for change in others if change.method == "add" and change.node]
        nodes = [*model.nodes, *added]
        open_nodes = [node_id for node_id, state in model.states.nodes.items() if state in UNSTARTED] + added
        target = random.choice(open_nodes) if open_nodes else ""
        chance = random.random()
        if chance < 0.35 and len(nodes) < _MAX_NODES:
            # Sometimes the name of one that the same edit removes.
            removed = [change.node.id for change in others if change.method == "remove" and change.node]
            name = removed[0] if removed and random.random() < 0.5 else self._new_name("a")
            after = tuple(random.sample(nodes, min(len(nodes), random.choice([0, 1, 1, 2]))))
            return Change("add", node=make_node(random, name, self._devices), after=after)
        if chance < 0.5 and target:
            return Change("replace", node=make_node(random, target, self._devices))
        if chance < 0.62 and target:
            return Change("remove", node=make_node(random, target, self._devices))
        if chance < 0.8 and model.edges:
            edge = random.choice(list(model.edges.values()))
            return Change("disconnect", edge=make_edge(random, edge.source, edge.target, None))
        edge_id = self._new_name("c") if random.random() < 0.5 else None
        return Change(
            "connect", edge=make_edge(random, random.choice(nodes or ["nowhere"]), target or "nowhere", edge_id)
        )

    def _bad_change(self, random: Random, model: Model) -> Change:
        nodes = list(model.nodes) or ["nowhere"]
        started = [node_id for node_id, state in model.states.nodes.items() if state not in UNSTARTED] or ["nowhere"]
        named: list[str | None] = [None, *(edge.id for edge in model.edges.values() if edge.id is not None)]
        back = [(edge.target, edge.source) for edge in model.edges.values()] or [("nowhere", "nowhere")]
        old = make_node(random, random.choice(started), self._devices)
        makers: list[Callable[[], Change]] = [
            lambda: Change("add", node=make_node(random, random.choice(nodes), self._devices)),
            lambda: Change("add", node=make_node(random, self._new_name("a"), self._devices), after=("nowhere",)),
            lambda: Change("replace", node=old),
            lambda: Change("remove", node=old),
            lambda: Change("connect", edge=make_edge(random, random.choice(nodes), old.id, None)),
            lambda: Change("connect", edge=make_edge(random, *random.choice(back), None)),
            lambda: Change(
                "connect", edge=make_edge(random, random.choice(nodes), random.choice(nodes), random.choice(named))
            ),
            lambda: Change("disconnect", edge=make_edge(random, random.choice(nodes), random.choice(nodes), None)),
        ]
        return random.choice(makers)()


def edit(referee: Referee, changes: Sequence[Change], *, outdated: bool, raises: bool) -> None:
    """Edit the graph, and check that all or nothing of it happens.

    Args:
        referee: Follows the graph.
        changes: The changes.
        outdated: Whether the edit is for another version.
        raises: Whether the edit raises an exception after its changes.
    """
    referee.sync()
    run, model = referee.run, referee.model
    before = run.snapshot()
    edited = None if outdated or raises else model.edited(changes)
    if edited is not None and edited.version > model.version:
        referee.expect_edit(edited, lambda: None)

    def change(edit: GraphEdit) -> None:
        apply_all(edit, changes)
        if raises:
            raise_at_the_end(edit)

    try:
        version = run.edit(change, version=model.version - 1 if outdated else None)
    except (GraphError, _Raised) as error:
        if edited is not None:
            referee.report(f"an edit was refused: {error!r}")
        if run.snapshot() != before:
            referee.report(f"an edit was refused, and changed the graph: {error!r}")
        if isinstance(error, VersionConflict) and error.version != model.version:
            referee.report(f"the version is {model.version}, and the refusal says {error.version}")
    else:
        if edited is None:
            referee.report("an edit was accepted that must be refused")
        elif version != edited.version:
            referee.report(f"an edit returned version {version} instead of {edited.version}")
    referee.sync(compare=True)
