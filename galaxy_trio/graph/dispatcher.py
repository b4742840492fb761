"""Runs the ready nodes of a graph as tasks of the constellation."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from functools import partial
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs
import trio

from galaxy_trio.constellation.ranked_queue import RankedQueue, has_higher_priority
from galaxy_trio.constellation.requirements import Requirements
from galaxy_trio.errors import ConnectionLost, GalaxyError, InvalidMessage, NoSuchDevice, QueueFull
from galaxy_trio.graph.backoff import longest_wait
from galaxy_trio.graph.memory_tables import LiveNode
from galaxy_trio.graph.ready_queue import ReadyNode, ReadyQueue
from galaxy_trio.graph.state_machine import NodeState
from galaxy_trio.messages import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Hashable

    from galaxy_trio.constellation.constellation import Constellation
    from galaxy_trio.constellation.ranked_queue import Rank
    from galaxy_trio.messages import JSON, TaskResult

End: TypeAlias = "tuple[NodeState, JSON, str | None]"
"""How an attempt ended: the state, the result, and the error."""

_FULL_QUEUE: Final = 1.0
"""Seconds until the next attempts to enter a device's queue that is full."""
_CLAIM: Final = 1.0
"""Seconds for which a node that found a free slot counts as running before it is sent."""
_MAX_RESTING: Final = 100
"""The number of tasks that wait for attempts, at most. Each takes some KiB of memory."""


class _NoRoom(Exception):
    """The graph's limit was reached while the node waited for its device, or a node that precedes it takes the last place."""


class GraphOwner(Protocol):
    """Decides what the end of an attempt means for the graph. Each call is one step."""

    def _node(self, node_id: str) -> LiveNode:
        """Return a node."""
        ...

    def _text_of(self, node: LiveNode) -> str:
        """Return the text to send for a node."""
        ...

    def _started(self, node: LiveNode, task_id: str, device_id: str) -> None:
        """Record that an attempt is being sent."""
        ...

    def _not_sent(self, node: LiveNode) -> None:
        """Record that an attempt was not sent after all: the node waits for a device again."""
        ...

    def _attempt_ended(self, node: LiveNode, state: NodeState, result: JSON, error: str | None) -> None:
        """Record the end of an attempt: the node ends, or is ready for another one."""
        ...


class Dispatcher:
    """Sends ready nodes to devices, in tasks of the nursery.

    Args:
        nursery: Runs the attempts; ends with the graph.
        constellation: Runs the tasks.
        owner: Decides what their ends mean.
        max_concurrent: The number of nodes that run at a time; None for no limit.
        random: The source of the jitter of waits.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        constellation: Constellation,
        owner: GraphOwner,
        max_concurrent: int | None,
        random: Random | None,
    ) -> None:
        self._nursery = nursery
        self._constellation = constellation
        self._owner = owner
        self._max_concurrent = max_concurrent
        # Jitter is not a secret.
        self._random = random or Random()  # noqa: S311
        self._ready = ReadyQueue()
        # The latest attempt of each node that waits for a device, or runs.
        self._attempts: dict[str, _Attempt] = {}
        # Attempts whose tasks have not begun, by rank: trio begins them in any order. One that was withdrawn has the rank of the next
        # attempt of its node.
        self._starting: list[tuple[Rank, int, _Attempt]] = []
        self._turns = itertools.count()
        # With a limit, those that were begun and neither claim a slot nor are being sent: the last by rank is the first.
        self._waiting = RankedQueue[_Attempt]()
        # Tasks that wait for attempts, and whether the current one, which has ended its attempt, takes the next one.
        self._resting = trio.lowlevel.ParkingLot()
        self._is_idle = False
        self._running = 0
        # Attempts that were begun for a free slot and have not been sent, and until when they count as running: with a limit, a later one
        # must not overtake them.
        self._claims: dict[_Attempt, float] = {}
        self._ends_claims = False
        # The slots of each device that attempts take when they begin.
        self._promised = Counter[str]()

    def _has_room(self, attempt: _Attempt) -> bool:
        """Whether an attempt may be sent now, with room for those that precede it."""
        if self._max_concurrent is None or self._running + len(self._claims) < self._max_concurrent:
            return True
        preceding = sum(claim.ready.rank < attempt.ready.rank for claim in self._claims)
        return self._running + preceding < self._max_concurrent

    @property
    def _may_begin(self) -> bool:
        return self._max_concurrent is None or self._running + len(self._claims) < self._max_concurrent

    def _claim(self, attempt: _Attempt) -> None:
        """Let an attempt count as running, with a limit, if it will get a slot when it begins."""
        if self._max_concurrent is None:
            return
        self._waiting.add(attempt.place, attempt)
        if attempt.node.not_before is not None:
            return
        spec = attempt.node.spec
        requirements = Requirements(spec.os, spec.capabilities, spec.where)
        try:
            device_id = self._constellation._scheduler.find_free(spec.device, requirements, self._promised)
        except Exception:  # noqa: BLE001  # `where` raised it: the attempt asks it again, and raises it
            return
        if device_id is not None:
            attempt.promised_by = device_id
            self._promised[device_id] += 1
            self._claims[attempt] = trio.current_time() + _CLAIM
            self._waiting.discard(attempt.place, attempt)
            if not self._ends_claims:
                self._ends_claims = True
                self._nursery.start_soon(self._end_claims)

    def add(self, node: LiveNode) -> None:
        """Run a node that is ready, when its turn comes. `start_ready` must follow."""
        self._ready.add(node.spec)

    def withdraw(self, node_id: str) -> None:
        """Run a node no more, or stop its attempt. A running one ends as cancelled."""
        self._ready.discard(node_id)
        attempt = self._attempts.get(node_id)
        if attempt is not None:
            attempt.withdraw()

    def start_ready(self) -> None:
        """Begin to run nodes that are ready.

        If no more nodes may run, those of a lower priority than the next one leave the queues of their devices: they would get the next
        slot.
        """
        while self._may_begin and (ready := self._ready.take()) is not None:
            node = self._owner._node(ready.id)
            attempt = self._attempts[node.id] = _Attempt(node, ready)
            self._claim(attempt)
            heapq.heappush(self._starting, (ready.rank, next(self._turns), attempt))
            if self._is_idle:
                self._is_idle = False
            elif self._resting:
                self._resting.unpark()
            else:
                self._nursery.start_soon(self._run_attempts)
        if self._waiting and not self._may_begin and (first := self._ready.first) is not None:
            while (last := self._waiting.first) is not None and has_higher_priority(first.rank, last.ready.rank):
                self._waiting.pop()
                if not last.withdrawn:
                    last.withdraw()
                    self._ready.put_back(last.ready)

    def wait_before(self, node: LiveNode) -> float:
        """Return the seconds to wait before another attempt of a node that failed: exponential, with full jitter."""
        return self._random.uniform(0, longest_wait(node.spec.backoff, node.attempt))

    async def _run_attempts(self) -> None:
        """Run attempts one after the other.

        A task and a cancel scope for each attempt would take longer than all else that happens to it here.
        """
        attempt = self._next_attempt()
        following: _Attempt | None = attempt
        end: End | None = None
        while following is not None:
            with trio.CancelScope() as scope:
                while following is not None:
                    attempt, end = following, None
                    attempt.scope = scope
                    try:
                        end = await self._run(attempt)
                    finally:
                        self._leave(attempt)
                    if scope.cancel_called:
                        break
                    following = await self._finish(attempt, end)
            if scope.cancel_called:
                following = await self._finish(attempt, end)

    def _next_attempt(self) -> _Attempt:
        """Take the next attempt that begins."""
        _, _, attempt = heapq.heappop(self._starting)
        if attempt.promised_by is not None:
            self._promised[attempt.promised_by] -= 1
        return attempt

    def _leave(self, attempt: _Attempt) -> None:
        if self._attempts.get(attempt.node.id) is attempt:
            del self._attempts[attempt.node.id]
        self._running -= attempt.sent
        self._claims.pop(attempt, None)
        self._waiting.discard(attempt.place, attempt)
        self._ready.release(attempt.ready)

    async def _finish(self, attempt: _Attempt, end: End | None) -> _Attempt | None:
        """Report the end of an attempt, and wait for the next one in this task. Returns None if enough tasks wait for one.

        There is no checkpoint between `_leave` and the report.
        """
        self._is_idle = True
        # It may have been withdrawn in the step in which it ended.
        if attempt.withdrawn and (end is None or end[0] is not NodeState.COMPLETED):
            end = (NodeState.CANCELLED, None, "it was cancelled") if attempt.sent else None
        if end is not None:
            self._owner._attempt_ended(attempt.node, *end)
        self.start_ready()
        has_next, self._is_idle = not self._is_idle, False
        if has_next:
            await trio.lowlevel.checkpoint()
        elif len(self._resting) < _MAX_RESTING:
            await self._resting.park()
        else:
            return None
        return self._next_attempt()

    async def _end_claims(self) -> None:
        """Let others go first if an attempt has not been sent in time: another task took the slot, or the device has left."""
        while self._claims:
            await trio.sleep_until(next(iter(self._claims.values())))
            now = trio.current_time()
            for attempt in [attempt for attempt, end in self._claims.items() if end <= now]:
                del self._claims[attempt]
                self._waiting.add(attempt.place, attempt)
            self.start_ready()
        self._ends_claims = False

    async def _run(self, attempt: _Attempt) -> End | None:
        node = attempt.node
        if attempt.withdrawn:
            return None
        if node.not_before is not None:
            await trio.sleep_until(node.not_before)
        text = self._owner._text_of(node)
        if not _can_be_sent(text):
            return NodeState.FAILED, None, "its text contains a lone surrogate, which cannot be sent"
        try:
            result = await self._run_task(attempt, text)
        except (QueueFull, _NoRoom) as refusal:
            # One that was withdrawn is not added again.
            await trio.lowlevel.checkpoint_if_cancelled()
            if isinstance(refusal, QueueFull) and self._ready.refuse(attempt.ready.requirements):
                self._nursery.start_soon(self._accept_soon, attempt.ready.requirements)
            self._ready.put_back(attempt.ready)
            return None
        except (ConnectionLost, InvalidMessage, trio.ClosedResourceError) as error:
            return NodeState.LOST if attempt.sent else NodeState.FAILED, None, str(error)
        except GalaxyError as error:
            return NodeState.FAILED, None, str(error)
        completed = result.status is TaskStatus.COMPLETED
        return NodeState.COMPLETED if completed else NodeState.FAILED, result.result, result.error

    async def _accept_soon(self, requirements: Hashable) -> None:
        """Try again later to enter the queues that were full, all nodes in their order."""
        await trio.sleep(_FULL_QUEUE)
        self._ready.accept(requirements)
        self.start_ready()

    async def _run_task(self, attempt: _Attempt, text: str) -> TaskResult:
        node, spec = attempt.node, attempt.node.spec

        async def before_sending(device_id: str) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            if not self._has_room(attempt):
                raise _NoRoom
            self._running += 1
            attempt.sent = True
            self._claims.pop(attempt, None)
            self._waiting.discard(attempt.place, attempt)
            self._owner._started(node, attempt.task_id, device_id)

        async def on_not_sent(device_id: str) -> None:
            del device_id
            # One that was cancelled counts as sent, so that it ends.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._running -= 1
            attempt.sent = False
            if self._max_concurrent is not None:
                self._waiting.add(attempt.place, attempt)
            self._owner._not_sent(node)
            self.start_ready()
            await trio.lowlevel.checkpoint()

        if spec.device is None:
            return await self._constellation.run_task(
                text,
                os=spec.os,
                capabilities=spec.capabilities,
                where=spec.where,
                priority=spec.priority,
                timeout=spec.timeout,
                task_id=attempt.task_id,
                before_sending=before_sending,
                on_not_sent=on_not_sent,
            )
        device = self._constellation.devices.get(spec.device)
        if device is None:
            raise NoSuchDevice(f"there is no device {spec.device!r} in this constellation")
        return await device.run_task(
            text,
            priority=spec.priority,
            timeout=spec.timeout,
            task_id=attempt.task_id,
            before_sending=before_sending,
            on_not_sent=on_not_sent,
        )


def _can_be_sent(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@attrs.define(eq=False)
class _Attempt:
    """An attempt to run a node.

    Attributes:
        node: The node.
        ready: Its place among the ready nodes.
        task_id: The id of its task.
        scope: Stops it, once it has begun.
        promised_by: The device that has a slot for it, until it begins.
        withdrawn: Whether it was stopped, or is not to begin.
        sent: Whether it is being sent, or may have run.
    """

    node: LiveNode
    ready: ReadyNode
    task_id: str = attrs.field(factory=partial(token_hex, 16))
    scope: trio.CancelScope | None = None
    withdrawn: bool = False
    promised_by: str | None = None
    sent: bool = False

    @property
    def place(self) -> Rank:
        """Its place among those that wait for devices, the last by rank first."""
        return -self.ready.rank[0], -self.ready.rank[1]

    def withdraw(self) -> None:
        """Stop it, or let it not begin."""
        self.withdrawn = True
        if self.scope is not None:
            self.scope.cancel()
