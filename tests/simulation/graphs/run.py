"""Carries out the plan of a graph's run, mends all faults, waits for the end of everything, and checks that nothing is left."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack, suppress
from random import Random
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import ConnectionOptions
from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio.constellation.config import DeviceConfig
from galaxy_trio.constellation.constellation import open_constellation
from galaxy_trio.graph import NodeState, open_graph
from galaxy_trio.testing import run
from tests.simulation.disturbances import connect_if_any, disturb
from tests.simulation.graphs.edits import EditMaker
from tests.simulation.graphs.plan import GraphPlan
from tests.simulation.graphs.planner import make_graph_plan
from tests.simulation.graphs.promises import broken_promises_of_graph
from tests.simulation.graphs.referee import End, Referee, Start
from tests.simulation.graphs.replies import Replies
from tests.simulation.graphs.stalls import StallWatch
from tests.simulation.graphs.thinking import Thinking
from tests.simulation.graphs.users import Users
from tests.simulation.graphs.world import GraphWorld
from tests.simulation.journal import ErrorLog, Journal
from tests.simulation.leftovers import left_in
from tests.simulation.world import HEARTBEAT, LIVENESS, OPENING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.graph import Graph, GraphSnapshot
    from tests.simulation.graphs.plan import Action
    from tests.simulation.plan import Disturbance

_PATIENCE: Final = 3_000.0
"""Seconds until a graph must have ended after all faults were mended: retries wait."""


@attrs.frozen
class GraphSimulation:
    """The result of a seed.

    Attributes:
        broken: Descriptions of the broken promises.
    """

    plan: GraphPlan
    journal: Journal
    broken: list[str]

    @property
    def counts(self) -> Counter[str]:
        """The numbers of what happened."""
        entries = self.journal.entries
        counts = Counter(f"{entry.actor} {entry.action}" for entry in entries)
        ends = Counter(
            entry.detail.partition("<NodeState.")[2].partition(":")[0]
            for entry in entries
            if entry.action == "NodeEnded"
        )
        users = Counter(entry.action for entry in entries if entry.actor == "user")
        return Counter(
            {
                "attempts": counts["graph NodeStarted"],
                "faults": counts["world disturbs"],
                **{state.value: ends[state.name] for state in NodeState if state.name in ends},
                "skipped": counts["graph NodeSkipped"],
                "retried": counts["graph NodeRetried"],
                "edits": counts["graph GraphEdited"],
                "refused edits": users["refused edit"] + users["outdated edit"],
                "cancellations": users["cancel"] + users["cancel graph"],
                "retries by users": users["retry"],
                "holds": users["hold"],
                "events": sum(entry.actor == "graph" for entry in entries),
            }
        )


def simulate_graph(seed: int) -> GraphSimulation:
    """Carry out the plan of a seed, and check the promises."""
    plan = make_graph_plan(seed)
    journal = Journal()
    log = ErrorLog()
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(log)
    broken: list[str] = []
    try:
        run(_Run(plan, journal, broken).run, seed=seed)
    except Exception as error:  # noqa: BLE001  # reported with the plan
        broken.append(f"something raised {error!r}: {first_leaf(error)!r}")
    finally:
        logger.removeHandler(log)
    broken += [f"an error was logged: {error}" for error in log.errors]
    return GraphSimulation(plan, journal, broken)


class _Left(Exception):
    """The block is left by it."""


class _Run:
    def __init__(self, plan: GraphPlan, journal: Journal, broken: list[str]) -> None:
        self._plan = plan
        self._journal = journal
        self._broken = broken
        self._scope = trio.CancelScope()
        self._watch = StallWatch(plan)
        self._replies = Replies()
        self._maker = EditMaker(plan.world.devices)
        self._starts: dict[str, Start] = {}
        self._ends: list[End] = []
        self._faults_left = len(plan.world.disturbances)
        self._no_faults_left = trio.Event()

    async def run(self) -> None:
        plan = self._plan
        with trio.fail_after(100_000), self._watch.watching(), self._replies.counting(), self._scope:
            world = GraphWorld(plan.world, self._journal)
            async with (
                world.running(),
                open_constellation(
                    [
                        DeviceConfig(each.name, world.fleet.url, max_concurrent_tasks=each.slots)
                        for each in plan.world.devices
                    ],
                    connect=world.connect,
                    options=ConnectionOptions(
                        connect_timeout=OPENING,
                        register_timeout=OPENING,
                        heartbeat_interval=HEARTBEAT,
                        liveness_timeout=LIVENESS,
                    ),
                    max_queued=plan.world.max_queued,
                    keepalive_expiry=plan.world.keepalive_expiry,
                    random=Random(f"backoff {plan.seed}"),
                ) as constellation,
                trio.open_nursery() as faults,
            ):
                self._watch.constellation = constellation
                for fault in plan.world.disturbances:
                    faults.start_soon(self._disturb, world, constellation, fault)
                await self._run_graph(world, constellation)
                faults.cancel_scope.cancel()
                await self._check_left(world, constellation)
            self._broken += broken_promises_of_graph(plan, world, self._journal, self._starts, self._ends)

    async def _disturb(self, world: GraphWorld, constellation: Constellation, fault: Disturbance) -> None:
        await trio.sleep_until(fault.at)
        await disturb(world, constellation, fault, self._broken)
        self._faults_left -= 1
        if not self._faults_left:
            self._no_faults_left.set()

    async def _run_graph(self, world: GraphWorld, constellation: Constellation) -> None:
        plan = self._plan
        graph: Graph | GraphSnapshot = plan.graph
        if plan.leaves_at is not None:
            before = [action for action in plan.actions if action.at < plan.leaves_at or action.reply is not None]
            graph = await self._run_block(world, constellation, graph, before, plan.leaves_at)
            if not plan.continues:
                await self._mend(world, constellation)
                return
        after = [action for action in plan.actions if plan.leaves_at is None or action.at >= plan.leaves_at]
        await self._run_block(world, constellation, graph, after, None)

    async def _run_block(
        self,
        world: GraphWorld,
        constellation: Constellation,
        graph: Graph | GraphSnapshot,
        actions: Sequence[Action],
        until: float | None,
    ) -> GraphSnapshot:
        plan = self._plan
        referees: list[Referee] = []
        planner = None
        if plan.planner is not None:
            planner = Thinking(plan.planner, plan.seed, self._maker, lambda: referees[0])
        with ExitStack() as stack:
            if plan.leaves_by_error:
                stack.enter_context(suppress(_Left))
            async with (
                open_graph(
                    constellation,
                    graph,
                    max_concurrent=plan.max_concurrent,
                    planner=planner,
                    planner_timeout=600.0 if plan.planner is None else plan.planner.timeout,
                    random=Random(f"jitter {plan.seed} {until}"),
                ) as graph_run,
                graph_run.subscribe(1_000_000) as stream,
            ):
                referee = self._watch.referee = Referee(
                    plan, world, graph_run, stream, self._broken, self._scope.cancel
                )
                referees.append(referee)
                async with trio.open_nursery() as nursery:
                    users = Users(plan.seed, referee, self._maker, nursery)
                    async with trio.open_nursery() as acting:
                        for action in actions:
                            acting.start_soon(self._act, users, action)
                        if until is None:
                            await self._wait_faults()
                        last = max((action.at for action in actions), default=0.0) + 1
                        await trio.sleep_until(last if until is None else until)
                        # Actions that wait for ends which have not come.
                        acting.cancel_scope.cancel()
                    if until is None:
                        await self._mend(world, constellation)
                    else:
                        nursery.cancel_scope.cancel()
                if until is None:
                    await self._wait_end(referee, planner)
                self._finish(referee)
                snapshot = graph_run.snapshot()
                if until is not None and plan.leaves_by_error:
                    raise _Left
        statistics = constellation.statistics()
        if statistics.queued:
            self._broken.append(f"{statistics.queued} tasks wait although the graph was left")
        return snapshot

    async def _act(self, users: Users, action: Action) -> None:
        if action.reply is None:
            await trio.sleep_until(action.at)
        else:
            await self._replies.wait(action.reply)
        for _ in range(action.passes):
            await trio.lowlevel.checkpoint()
        users.act(action)

    async def _wait_faults(self) -> None:
        if self._faults_left:
            await self._no_faults_left.wait()

    async def _mend(self, world: GraphWorld, constellation: Constellation) -> None:
        self._journal.write("world", "mends", "all")
        await world.mend_all()
        async with trio.open_nursery() as nursery:
            for device in constellation.devices.values():
                nursery.start_soon(connect_if_any, device.connect)

    async def _wait_end(self, referee: Referee, planner: Thinking | None) -> None:
        """Wait for the end of the graph: all faults are mended, all holds are released."""
        if planner is not None:
            planner.become_calm()
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(_PATIENCE) as waiting:
                await Users(self._plan.seed, referee, self._maker, nursery).wait()
        if waiting.cancelled_caught and not referee.off:
            left = {node: state.value for node, state in referee.run.states.items() if state in _UNENDED}
            referee.report(f"the graph never ended although all faults were mended: {left}")
        if referee.failures and not referee.off:
            referee.report("the planner failed, and no call raised it")

    def _finish(self, referee: Referee) -> None:
        """Take over what the referee knows. What runs now is stopped by leaving the block."""
        referee.sync(compare=True)
        now = trio.current_time()
        self._watch.referee = None
        self._starts |= referee.starts
        self._ends += referee.ends
        for node_id, state in referee.model.states.nodes.items():
            task_id = referee.model.nodes[node_id].task_id
            if state is NodeState.RUNNING and task_id is not None:
                self._ends.append(End(now, task_id, stopped=True))

    async def _check_left(self, world: GraphWorld, constellation: Constellation) -> None:
        left = "unknown"
        with trio.move_on_after(_PATIENCE):
            while left := left_in(constellation, world):  # noqa: ASYNC110  # there is no single event for it
                await trio.sleep(1)
        if left:
            self._broken.append(f"not everything was released: {left}")


_UNENDED: Final = (NodeState.WAITING, NodeState.READY, NodeState.RUNNING)
