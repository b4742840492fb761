"""One simulated run of a cluster."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping  # attrs reads annotations at run time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio.testing import run as run_deterministically
from tests.simulation.cluster.graphs import GraphCheck, be_graph_user, make_graph_users
from tests.simulation.cluster.people import Clients, Observer
from tests.simulation.cluster.plan import ClusterPlan, make_plan
from tests.simulation.cluster.promises import broken_promises, unsettled
from tests.simulation.cluster.world import ClusterWorld, open_world
from tests.simulation.journal import ErrorLog, Journal

if TYPE_CHECKING:
    from tests.simulation.cluster.plan import Fault

_LIMIT: Final = 150.0
"""Seconds after which a run that has not ended is stuck."""
_RETRY: Final = 5.0
"""Seconds between two attempts to register a device's connection that its server refuses."""
_OBSERVERS: Final = 2
_SETTLING: Final = 60.0
"""Maximum seconds until nothing is left."""


@attrs.frozen
class ClusterSimulation:
    """A run.

    Attributes:
        changes: What users did with graphs, in numbers.
        broken: The promises that were broken.
    """

    plan: ClusterPlan
    journal: Journal
    changes: Mapping[str, int]
    broken: list[str]

    @property
    def counts(self) -> Counter[str]:
        """What has happened, in numbers."""
        ends = Counter(entry.detail for entry in self.journal.of("client", "sees the end of"))
        begun = self.journal.of("device", "begins the node")
        numbers = {"graphs": sum(self.plan.graphs), "attempts of nodes": len(begun), **self.changes}
        return Counter(
            {"tasks": len(self.plan.tasks), **numbers, "faults": len(self.journal.of("world", "disturbs")), **ends}
        )


def simulate_cluster(seed: int) -> ClusterSimulation:
    """Carry out the plan of one seed."""
    plan, journal, changes = make_plan(seed), Journal(), Counter[str]()
    log = ErrorLog()
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(log)
    random.seed(seed)
    try:
        broken = run_deterministically(_run, plan, journal, changes, seed=seed)
    except Exception as error:  # noqa: BLE001  # whatever a daemon raises
        broken = [f"an error came out: {error!r}"]
    finally:
        logger.removeHandler(log)
    broken += [f"an error was logged: {error}" for error in log.errors if "Traceback" in error]
    return ClusterSimulation(plan, journal, changes, broken)


async def _run(plan: ClusterPlan, journal: Journal, changes: Counter[str]) -> list[str]:
    async with open_world(plan, journal) as world:
        clients, users = Clients(world), make_graph_users(world, changes)
        check = GraphCheck(world, users)
        observers = [Observer(world, number) for number in range(_OBSERVERS)]
        with trio.move_on_after(_LIMIT) as limit:
            async with trio.open_nursery() as watching:
                for observer in observers:
                    watching.start_soon(observer.follow)
                watching.start_soon(check.check_repeatedly)
                async with trio.open_nursery() as nursery:
                    for number, tasks in enumerate(plan.clients):
                        nursery.start_soon(clients.be_client, number, tasks)
                    for number, count in enumerate(plan.graphs):
                        nursery.start_soon(be_graph_user, users, number, plan.seed, count)
                    nursery.start_soon(_disturb, world)
                await _settle(world, observers)
                watching.cancel_scope.cancel()
        if limit.cancelled_caught:
            missing = [task.name for task in plan.tasks if task.name not in clients.ends]
            world.broken.append(f"it is stuck; these have not ended: {missing}")
        for name, state in clients.ends.items():
            journal.write("client", "sees the end of", name, state)
        return [*world.broken, *broken_promises(world, clients, users, observers)]


async def _disturb(world: ClusterWorld) -> None:
    """Cause the faults, and check that the devices are connected again in time."""

    async def disturb(fault: Fault) -> None:
        await trio.sleep(fault.at)
        await world.disturb(fault)

    async with trio.open_nursery() as nursery:
        for fault in world.plan.faults:
            nursery.start_soon(disturb, fault)
    mended, limit = world.mended, recovery_limit(world.plan)
    with trio.move_on_at(mended + limit):
        while not world.connected:  # noqa: ASYNC110  # a database and a server have no event for it
            await trio.sleep(0.05)
    world.journal.write("world", "has recovered", f"in {trio.current_time() - mended:.2f} of {limit:.2f} s")
    if not world.connected:
        world.broken.append(f"the devices were not connected {limit:.2f} s after the last fault")


def recovery_limit(plan: ClusterPlan) -> float:
    """Maximum seconds from the end of all faults until each device is owned and connected.

    A fault may lose a lease until its end, and what is registered at the server then lasts as long.
    """
    limit = 4 / 3 * plan.lease + _RETRY
    # Daemons that could not connect a device for two leases leave it to others, as those do to them.
    return limit + 4 * plan.lease if plan.has("death of server", "death of device", "cut off") else limit


async def _settle(world: ClusterWorld, observers: list[Observer]) -> None:
    """Wait until nothing is left to do, and the observers have seen all events."""
    with trio.move_on_after(_SETTLING):
        while (left := list(unsettled(world))) or len({observer.last_id for observer in observers}) > 1:  # noqa: ASYNC110  # as above
            await trio.sleep(0.2)
    world.broken += left
    # The last events may be those of devices.
    await trio.sleep(1)
