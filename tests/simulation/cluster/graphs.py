"""The users of graphs in a simulated cluster, and what must be true of all graphs after each transaction."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio
from sqlalchemy import create_engine

from tests.daemon.support.graph_consistency import inconsistencies
from tests.daemon.support.graph_documents import Documents
from tests.daemon.support.graph_users import GraphUsers

if TYPE_CHECKING:
    from collections import Counter

    from tests.simulation.cluster.world import ClusterWorld

_PAUSE: Final = 3.0
"""The longest pause of a user before a request, in seconds."""
_MAX_WORK: Final = 6.0
"""Maximum seconds of a node's work."""
_INTERVAL: Final = 1.0
"""Seconds between two checks of all rows, if any have changed."""
_UNFOLLOWED: Final = """
SELECT graph_nodes.id, tasks.state FROM graph_nodes JOIN tasks ON tasks.id = graph_nodes.task
WHERE graph_nodes.state = 'ready' AND graph_nodes.not_before IS NULL AND tasks.state IN ('completed', 'failed', 'cancelled')
"""
"""The nodes that do not know the end of their task. Only the death of a daemon, by which it is lost, may be followed later."""


def make_graph_users(world: ClusterWorld, counts: Counter[str]) -> GraphUsers:
    """Make the users of a cluster's graphs.

    Args:
        world: The cluster.
        counts: Gets the numbers of what they do.
    """
    devices = world.plan.devices
    names = [device.name for device in devices]
    # The devices must be able to do all of it in time.
    seconds = min(_MAX_WORK, 2.0 * sum(device.slots for device in devices))
    users = GraphUsers(world.ask_once, lambda random: Documents(random, names, seconds, 2), 0.5)
    users.counts = counts
    return users


async def be_graph_user(users: GraphUsers, number: int, seed: int, graphs: int) -> None:
    """Submit a number of graphs, and change them."""
    left = iter(range(graphs))
    await users.be_user(number, Random(f"user {number} {seed}"), _PAUSE, lambda: next(left, None) is None)


class GraphCheck:
    """Checks the rows of all graphs while the cluster runs."""

    def __init__(self, world: ClusterWorld, users: GraphUsers) -> None:
        self._world = world
        self._users = users
        self._engine = create_engine("sqlite://", creator=world.database.connect)
        self._has_changed = True
        world.database.on_commit = self._check_commit

    def _check_commit(self) -> None:
        self._has_changed = True
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql(_UNFOLLOWED).all()
        at = f"at {trio.current_time():.3f}"
        self._world.broken += [f"{at}: {node_id} does not know that its task is {state}" for node_id, state in found]

    async def check_repeatedly(self) -> None:
        """Check all rows from time to time until this is cancelled."""
        while True:
            await trio.sleep(_INTERVAL)
            if self._has_changed:
                self._has_changed = False
                with self._engine.connect() as connection:
                    found = list(inconsistencies(connection, self._users.changed))
                self._world.broken += [f"at {trio.current_time():.3f}: {problem}" for problem in found]
