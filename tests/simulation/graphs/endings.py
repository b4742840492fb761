"""The ends that a node can have, as far as the devices and the plan explain them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio.graph import NodeState

if TYPE_CHECKING:
    from galaxy_trio.graph import Node, NodeEnded
    from tests.simulation.graphs.model import Model
    from tests.simulation.graphs.plan import GraphPlan
    from tests.simulation.graphs.world import GraphWorld

_ALIKE: Final = 1e-6
"""Seconds by which two equal times may differ."""


def is_lost(error: str | None) -> bool:
    """Whether this is the error of an attempt whose end is unknown."""
    return error is not None and "was lost" in error


def is_late(error: str | None) -> bool:
    """Whether this is the error of an attempt that took too long."""
    return error is not None and "did not end on device" in error


def has_faults(plan: GraphPlan) -> bool:
    """Whether anything goes wrong on the network or with devices."""
    return bool(plan.world.disturbances)


def problem_of_end(plan: GraphPlan, world: GraphWorld, model: Model, event: NodeEnded) -> str | None:
    """Describe why a node that ran cannot have ended like this."""
    node = model.nodes[event.node_id]
    task_id = str(node.task_id)
    more = node.attempt <= node.spec.retries and not node.cancelling and not model.cancelled
    match event.state:
        case NodeState.COMPLETED:
            return None if task_id in world.results else "its device has not completed it"
        case NodeState.CANCELLED:
            return None if node.cancelling else "it was not cancelled"
        case NodeState.LOST:
            if more and node.spec.retry_lost:
                return "it has another attempt"
            return None if has_faults(plan) else "nothing was lost"
        case NodeState.FAILED if more:
            return "it has another attempt"
        case NodeState.FAILED if is_late(event.error):
            too_early = trio.current_time() < node.started + node.spec.timeout - _ALIKE
            return "that was too early" if too_early else None
        case NodeState.FAILED:
            return None if has_faults(plan) or task_id in world.failures else "nothing failed"
        case _:
            return "that is no end"


def problem_of_unsent(plan: GraphPlan, spec: Node, event: NodeEnded) -> str | None:
    """Describe why a node that was not sent, and not cancelled, cannot have ended like this."""
    if event.state is not NodeState.FAILED:
        return "it was not sent"
    fits = any(
        spec.device in (None, device.name)
        and spec.os in (None, device.platform)
        and spec.capabilities <= {device.feature}
        for device in plan.world.devices
    )
    return "there is a device for it" if fits and not plan.world.has("removal", "immediate removal") else None
