"""What a cluster promises, checked when everything has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, select

from galaxy_trio.daemon.store.ownership import fair_share
from galaxy_trio.daemon.store.schema import DAEMONS, EVENTS, GRAPHS, OWNERSHIP, TASKS
from tests.daemon.support.graph_promises import broken_graph_promises
from tests.simulation.cluster.people import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.daemon.support.graph_users import GraphUsers
    from tests.simulation.cluster.people import Clients, Observer
    from tests.simulation.cluster.plan import PlannedTask
    from tests.simulation.cluster.world import ClusterWorld

_NEXT: Final = {
    "": {"queued"},
    "queued": {"running", "completed", "failed", "cancelled", "lost"},
    "running": {"queued", *ENDED},
}
"""What may follow a state. A task whose beginning was cancelled or failed never runs."""


def broken_promises(
    world: ClusterWorld, clients: Clients, users: GraphUsers, observers: Sequence[Observer]
) -> Iterator[str]:
    """Yield the promises that were broken."""
    engine = create_engine("sqlite://", creator=world.database.connect)
    with engine.connect() as connection:
        tasks = connection.execute(select(TASKS.c.id, TASKS.c.state, TASKS.c.graph, TASKS.c.node)).all()
        states: dict[str, str] = {row.id: row.state for row in tasks}
        last_event = connection.execute(select(EVENTS.c.id).order_by(EVENTS.c.id.desc()).limit(1)).scalar()
        claimed = connection.scalars(select(TASKS.c.id).where(TASKS.c.claimed_by.is_not(None))).all()
        yield from broken_graph_promises(connection, users, world.attempts, [observer.graphs for observer in observers])
    engine.dispose()
    of_graphs = [row for row in tasks if row.graph is not None]
    lost = [row.node for row in of_graphs if row.state == "lost"]
    if lost and not world.plan.may_lose:
        yield f"nodes were lost without a fault: {lost}"
    if claimed:
        yield f"tasks that have ended are claimed: {claimed}"
    if len(tasks) - len(of_graphs) != len(world.plan.tasks):
        yield f"{len(world.plan.tasks)} tasks were accepted, and there are {len(tasks) - len(of_graphs)}"
    for task in world.plan.tasks:
        yield from _of_task(world, clients, task, states.get(clients.ids.get(task.name, ""), "missing"))
    for observer in observers:
        yield from _of_events(observer, states, last_event or 0)


def _of_task(world: ClusterWorld, clients: Clients, task: PlannedTask, state: str) -> Iterator[str]:
    begins = len(world.journal.of("device", "begins", task.name))
    ends = [entry.detail for entry in world.journal.of("device", "ends", task.name)]
    if begins > 1:
        yield f"{task.name} began {begins} times"
    if state not in ENDED:
        yield f"{task.name} is {state} at the end"
    if clients.ends.get(task.name, state) != state:
        yield f"{task.name} was {clients.ends[task.name]}, and is {state}"
    if state == "completed" and ends != ["done"]:
        yield f"{task.name} is completed, and its device was {ends}"
    if state == "cancelled" and task.name not in clients.asked_to_cancel:
        yield f"{task.name} was cancelled without a request"
    if state == "failed" and ends != ["failed"] and not world.plan.has("death of server", "death of device", "reset"):
        yield f"{task.name} failed, and its device was {ends}"
    if state == "lost" and not world.plan.may_lose:
        yield f"{task.name} was lost without a fault"


def unsettled(world: ClusterWorld) -> Iterator[str]:
    """Yield what is not yet as it must be when nothing happens any more."""
    for number, process in enumerate(world.processes):
        left = f"daemon-{number} is down" if process is None else process.left()
        if left:
            yield left
    engine = create_engine("sqlite://", creator=world.database.connect)
    with engine.connect() as connection:
        rows = connection.execute(select(OWNERSHIP.c.device, OWNERSHIP.c.owner)).all()
        living = connection.scalars(select(DAEMONS.c.id).where(DAEMONS.c.died.is_(None))).all()
        graphs = connection.scalars(select(GRAPHS.c.id).where(GRAPHS.c.state == "running")).all()
    engine.dispose()
    if graphs:
        yield f"{len(graphs)} graphs run"
    owners: dict[str, str | None] = {row.device: row.owner for row in rows}
    if len(living) != world.plan.daemons:
        yield f"{len(living)} of {world.plan.daemons} daemons live"
    for device in world.plan.devices:
        if owners.get(device.name) not in living:
            yield f"{device.name} has no owner that lives"
    if not world.plan.has("drain"):
        share = fair_share(len(world.plan.devices), world.plan.daemons)
        for life in living:
            count = sum(owner == life for owner in owners.values())
            if count > share:
                yield f"a daemon owns {count} devices, and its share is {share}"


def _of_events(observer: Observer, states: dict[str, str], last_event: int) -> Iterator[str]:
    if observer.last_id > last_event:
        yield f"an observer got event {observer.last_id} of {last_event}"
    for task_id, state in states.items():
        seen = observer.states.get(task_id, [])
        if any(state not in _NEXT.get(before, ()) for before, state in zip(["", *seen], seen, strict=False)):
            yield f"the events of {task_id} are {seen}"
        if seen[-1:] != [state]:
            yield f"{task_id} is {state}, and its events are {seen}"
