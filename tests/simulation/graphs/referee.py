"""Follows a running graph event by event with a naive model, and reports where the two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from galaxy_trio.events import EventsLost
from galaxy_trio.graph import (
    GraphEdited,
    GraphEnded,
    GraphEvent,
    GraphSnapshot,
    NodeEnded,
    NodeReady,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    NodeState,
    NodeWaiting,
)
from tests.simulation.graphs.comparison import differences
from tests.simulation.graphs.endings import has_faults, is_late, is_lost, problem_of_end, problem_of_unsent
from tests.simulation.graphs.model import UNSTARTED, Model, ModelNode
from tests.simulation.graphs.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.events import EventStream
    from galaxy_trio.graph import GraphRun
    from galaxy_trio.messages import JSON
    from tests.simulation.graphs.plan import GraphPlan
    from tests.simulation.graphs.world import GraphWorld

    Sources: TypeAlias = dict[str, tuple[str, JSON, str | None]]

_MAX_BACKOFF: Final = 300.0
_ALIKE: Final = 1e-6
"""Seconds by which two equal times may differ."""


@attrs.frozen
class Start:
    """What the model knew when an attempt was sent.

    Attributes:
        sources: The states, results and errors of the nodes before the node.
    """

    node_id: str
    request: str
    device: str
    sources: Sources


@attrs.frozen
class End:
    """The end of an attempt that was sent."""

    at: float
    task_id: str
    stopped: bool


class Referee:
    """Follows one block of a graph.

    Args:
        plan: The plan of the run.
        world: The world, which knows what the devices did.
        run: The graph.
        stream: A subscription of its events, of which it alone takes the events.
        broken: Receives the broken promises.
        stop: Ends the run, after the first one.

    Attributes:
        model: The graph as it should be.
        starts: What was sent, by task.
        ends: The ends of attempts.
        planned: Whether the graph has a planner.
        waiting: Ends that the planner has not been called with, held by the model.
        thinking: Ends that the planner thinks about, held by the model.
        planner_is_stopped: Whether the graph was cancelled while the planner thought.
        failures: The number of times that the planner failed, and `GraphRun.wait` has not raised it.
    """

    def __init__(
        self,
        plan: GraphPlan,
        world: GraphWorld,
        run: GraphRun,
        stream: EventStream[GraphEvent | GraphSnapshot],
        broken: list[str],
        stop: Callable[[], None],
    ) -> None:
        self.run = run
        self._stop = stop
        self._plan = plan
        self._world = world
        self._stream = stream
        self._broken = broken
        self.starts: dict[str, Start] = {}
        self.ends: list[End] = []
        self.planned = plan.planner is not None
        self.waiting: list[tuple[str, int]] = []
        self.thinking: list[tuple[str, int]] = []
        self.failures = 0
        self.planner_is_stopped = False
        self._cancelling = False
        self._edit: tuple[Model, Callable[[], None]] | None = None
        first = stream._pop()
        assert isinstance(first, GraphSnapshot)
        self.model = Model.of(first)
        self._replay = Replay(first)
        # Whether the last thing that the events said of the graph is its end.
        self._announced = self.model.has_ended
        self._compare()

    def report(self, problem: str) -> None:
        """Report a broken promise. Only the first one counts: after it, the model may be wrong."""
        self._broken.append(f"at {trio.current_time():.6f}: {problem}")
        self._stop()

    @property
    def off(self) -> bool:
        """Whether a promise was broken."""
        return bool(self._broken)

    def sync(self, *, compare: bool = False) -> None:
        """Take in all events since the last time, in the same step as they happened or before time goes on."""
        while self._stream._events and not self.off:
            event = self._stream._pop()
            compare = True
            if not isinstance(event, NodeEnded):
                self._finish_cancellation()
            assert not isinstance(event, EventsLost | GraphSnapshot)
            self._world.journal.write("graph", type(event).__name__, getattr(event, "node_id", ""), event)
            self._replay.apply(event)
            self._take(event)
        self._finish_cancellation()
        if compare and not self.off:
            self._compare()

    def expect_cancellation(self) -> None:
        """Expect the cancellation of the graph in this step: its planner stops thinking, and is not called with the ends."""
        self._cancelling = self.model.cancelled = True
        self.planner_is_stopped = bool(self.thinking)

    def _finish_cancellation(self) -> None:
        # After all nodes that had not started have ended.
        if self._cancelling:
            self._cancelling = False
            waiting, self.waiting = self.waiting, []
            self.model.release(waiting)

    def expect_edit(self, edited: Model, then: Callable[[], None]) -> None:
        """Expect the event of an edit that follows in this step, and do something after it has been applied."""
        self._edit = edited, then

    def release_planned(self) -> None:
        """Release the ends that the planner has thought about."""
        thinking, self.thinking = self.thinking, []
        self.planner_is_stopped = False
        self.model.release(thinking)

    # What happened.

    def _take(self, event: GraphEvent) -> None:
        if not isinstance(event, NodeEnded):
            # The ends of a cancellation happen together.
            self.model.states.settle()
        match event:
            case NodeReady():
                self._ready(event)
            case NodeWaiting():
                # Another edge may be decided in the same step.
                self._expect(event.node_id, "waits", NodeState.WAITING, NodeState.SKIPPED, NodeState.READY)
            case NodeSkipped():
                self._expect(event.node_id, "is skipped", NodeState.SKIPPED)
            case NodeStarted():
                self._started(event)
            case NodeRetried():
                self._retried(event)
            case NodeEnded():
                self._ended(event)
            case GraphEdited():
                self._edited(event)
            case GraphEnded():
                self._announced = True
                if self._busy:
                    self.report(f"the graph ended, but {self._busy}")
            case _:
                self.report(f"there is no such event: {event}")

    def _expect(self, node_id: str, what: str, *states: NodeState) -> None:
        state = self.model.states.nodes.get(node_id)
        if state not in states:
            self.report(f"{node_id} {what}, and should be {state}")

    def _ready(self, event: NodeReady) -> None:
        node_id = event.node_id
        if self.model.states.nodes.get(node_id) is NodeState.RUNNING:
            # It was not sent.
            node = self.model.nodes[node_id]
            self.model.states.nodes[node_id] = NodeState.READY
            node.attempt -= 1
            self.model.attempts -= 1
            assert node.task_id is not None
            node.sent_as.discard(node.task_id)
            if any(received.task_id == node.task_id for received in self._world.received):
                self.report(f"{node_id} counts as not sent, and the server has received it")
        self._expect(node_id, "is ready", NodeState.READY)

    def _started(self, event: NodeStarted) -> None:
        node_id, task_id = event.node_id, event.task_id
        self._expect(node_id, "starts", NodeState.READY)
        if self.off:
            return
        model, now = self.model, trio.current_time()
        node = model.nodes[node_id]
        if model.states.holds[node_id]:
            self.report(f"{node_id} starts, and is held")
        if now < node.not_before - _ALIKE:
            self.report(f"{node_id} starts before {node.not_before}, the end of its backoff")
        if any(task_id in other.sent_as for other in model.nodes.values()):
            self.report(f"{node_id} starts with the task id of another attempt")
        if event.attempt != node.attempt + 1:
            self.report(f"{node_id} starts its attempt {event.attempt} after attempt {node.attempt}")
        if node.spec.device not in (None, event.device_id):
            self.report(f"{node_id} starts on {event.device_id}")
        running = sum(state is NodeState.RUNNING for state in model.states.nodes.values())
        if self._plan.max_concurrent is not None and running >= self._plan.max_concurrent:
            self.report(f"{node_id} starts, and {running} nodes run already")
        if model.cancelled:
            self.report(f"{node_id} starts in a graph that was cancelled")
        node.attempt += 1
        model.attempts += 1
        node.task_id, node.started, node.result, node.error = task_id, now, None, None
        node.sent_as.add(task_id)
        self.starts[task_id] = Start(node_id, node.spec.request, event.device_id, model.sources(node_id))
        model.states.nodes[node_id] = NodeState.RUNNING

    def _retried(self, event: NodeRetried) -> None:
        node_id = event.node_id
        self._expect(node_id, "is retried", NodeState.RUNNING)
        if self.off:
            return
        node = self.model.nodes[node_id]
        if node.cancelling or self.model.cancelled:
            self.report(f"{node_id} is retried, and was cancelled")
        if event.attempt != node.attempt or node.attempt > node.spec.retries:
            self.report(f"{node_id} is retried after attempt {event.attempt}, the last one was {node.attempt}")
        if event.wait > min(node.spec.backoff * 2 ** (node.attempt - 1), _MAX_BACKOFF):
            self.report(f"{node_id} is retried after {event.wait} s")
        if is_lost(event.error) and not node.spec.retry_lost:
            self.report(f"{node_id} is retried, and was lost")
        timed_out = is_late(event.error)
        if node.task_id in self._world.results and not has_faults(self._plan) and not timed_out:
            self.report(f"{node_id} is retried, and has completed")
        node.not_before = trio.current_time() + event.wait
        node.result, node.error = self._result(event, node), event.error
        self._attempt_ended(node_id, stopped=timed_out)
        self.model.states.nodes[node_id] = NodeState.READY

    def _ended(self, event: NodeEnded) -> None:
        node_id, state = event.node_id, event.state
        self._expect(node_id, f"ends as {state}", NodeState.RUNNING, *UNSTARTED)
        if self.off:
            return
        model, node = self.model, self.model.nodes[node_id]
        before = model.states.nodes[node_id]
        result: JSON = None
        if before is NodeState.RUNNING:
            problem = problem_of_end(self._plan, self._world, model, event)
            stopped = state is NodeState.CANCELLED or is_late(event.error)
            self._attempt_ended(node_id, stopped=stopped)
            result = self._result(event, node)
        elif state is NodeState.CANCELLED:
            problem = None if node.cancelling else "it was not cancelled"
            result = node.result
        else:
            problem = problem_of_unsent(self._plan, node.spec, event)
        if problem:
            self.report(f"{node_id} was {before} and ends as {state}, {event.error}: {problem}")
        model.end(node_id, state, result, event.error)
        if self.planned and not model.cancelled:
            self.waiting += model.hold([node_id])

    def _result(self, event: NodeEnded | NodeRetried, node: ModelNode) -> JSON:
        if isinstance(event, NodeEnded) and event.state is NodeState.COMPLETED:
            return self._world.results.get(str(node.task_id))
        # A server that reports a failure may give an empty result.
        found = self.run.snapshot().node(event.node_id).result
        has_failed = isinstance(event, NodeRetried) or event.state is NodeState.FAILED
        return found if has_failed and found == {} else None

    def _attempt_ended(self, node_id: str, *, stopped: bool) -> None:
        task_id = self.model.nodes[node_id].task_id
        assert task_id is not None
        self.ends.append(End(trio.current_time(), task_id, stopped))

    def _edited(self, event: GraphEdited) -> None:
        if self._edit is None:
            self.report(f"the graph was edited without a call: {event}")
            return
        (edited, then), self._edit = self._edit, None
        before, self.model = self.model, edited
        serials = {node_id: node.serial for node_id, node in before.nodes.items()}
        added = {node_id for node_id, node in edited.nodes.items() if node.serial != serials.get(node_id)}
        removed = serials.keys() - edited.nodes.keys()
        replaced = {
            node_id
            for node_id, node in edited.nodes.items()
            if node_id not in added and node is not before.nodes[node_id]
        }
        found = event.version, set(event.added), set(event.replaced), set(event.removed)
        if found != (edited.version, added, replaced, removed):
            self.report(f"{event}, and should be version {edited.version}, {added}, {replaced}, {removed}")
        edited.states.settle()
        then()

    # What should be.

    @property
    def _busy(self) -> str:
        """Describe why the graph cannot have ended; empty if it should have."""
        if not self.model.has_ended:
            return "not all nodes have ended"
        return "its planner has ends to think about" if self.waiting or self.thinking else ""

    def _compare(self) -> None:
        self.model.states.settle()
        for difference in differences(self.run, self.model, self._replay, planning=bool(self.waiting or self.thinking)):
            self.report(difference)
        if self._edit is not None:
            self.report("an edit was accepted without an event")
        if self._busy:
            self._announced = False
        elif not self._announced:
            self.report("the graph has ended without an event of it")
