"""Random histories of the scheduler, compared with a model that has all tasks in memory."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from galaxy_trio.daemon.device_slots import DeviceSlots, DeviceState
from galaxy_trio.daemon.requirement_queue import READ_AHEAD, RequirementQueue
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store.records import Requirement, TaskRecord
from tests.daemon.support.scheduling import AWAY, PAGE, make_record

pytestmark = pytest.mark.daemon

NAMES: Final = ("a", "b", "c")
SIZES: Final = {"a": 1, "b": 2, "c": 3}
MAX_RUNNING: Final = 4
REQUIREMENTS: Final = (
    *(Requirement(name) for name in NAMES),
    Requirement(),
    Requirement(None, "Linux"),
    Requirement(None, "windows", ("excel",)),
    Requirement(None, None, ("excel",)),
)
STATES: Final = st.builds(
    DeviceState,
    connected=st.booleans(),
    usable=st.just(True),
    known=st.just(True),
    os=st.sampled_from(["linux", "windows"]),
    capabilities=st.sampled_from([frozenset[str](), frozenset({"excel"}), frozenset({"excel", "cli"})]),
)


@attrs.define(eq=False)
class Taken:
    """A task that has a slot."""

    record: TaskRecord
    slots: DeviceSlots
    begun: bool = False


class SchedulerStates(RuleBasedStateMachine):
    """A scheduler, with a model of the tasks on disk and of those that have a slot."""

    is_alone = True

    def __init__(self) -> None:
        super().__init__()
        self.limit: int | None = None
        self.begin()

    def begin(self) -> None:
        """Start a new daemon."""
        self.scheduler = Scheduler(self.limit, is_alone=self.is_alone)
        self.taken: list[Taken] = []
        # The queues whose claims are being changed, each with the tasks to give back.
        self.changing: list[tuple[RequirementQueue, list[TaskRecord]]] = []
        # The numbers of the claimed tasks, in the database.
        self.claimed: set[int] = set()
        self.failing: list[RequirementQueue] = []
        if not hasattr(self, "disk"):
            # The queued tasks on disk, by number.
            self.disk: dict[int, TaskRecord] = {}
            self.numbers = 0
            self.begun: list[int] = []
            # The numbers of the tasks that another daemon has claimed, and of those that it has given back.
            self.claimed_by_another: set[int] = set()
            self.returned: set[int] = set()

    def dispatch(self) -> None:
        """Take the tasks and queues that the scheduler returns, and check each of them."""
        for record, slots in self.scheduler.take():
            assert record.number in self.claimed
            assert record.number in self.disk, f"{slots.device_id} took {record.number}, which has ended"
            assert slots.state.connected
            assert slots.taken <= slots.size
            earlier = [
                other
                for other in self.queued(slots)
                if other.rank < record.rank and (other.number in self.claimed or other.number not in self.returned)
            ]
            assert not earlier, f"{slots.device_id} took {record.number} before {earlier[0].number}"
            assert slots.can_run(record.asked.requirement)
            self.taken.append(Taken(record, slots))
            assert len(self.taken) <= (self.limit or len(self.taken))
        to_change, to_fail = self.scheduler.check()
        assert not set(to_change) & {queue for queue, _ in self.changing}, "two changes at the same time"
        assert not set(to_fail) & set(self.failing), "tasks are failed twice"
        self.changing += [(queue, queue.take_surplus()) for queue in to_change]
        self.failing += to_fail

    def queued(self, slots: DeviceSlots) -> list[TaskRecord]:
        """The queued tasks that a device can run, and that have no slot, also none of another daemon."""
        taken = {task.record.number for task in self.taken if not task.begun} | self.claimed_by_another
        return [
            record
            for record in self.disk.values()
            if record.number not in taken and slots.can_run(record.asked.requirement)
        ]

    def counts(self) -> dict[Requirement, int]:
        """The number of queued tasks on disk with each requirement."""
        return Counter(record.asked.requirement for record in self.disk.values())

    @rule(limit=st.sampled_from([None, MAX_RUNNING]))
    def restart(self, limit: int | None) -> None:
        self.limit = limit
        self.begin()
        self.scheduler.load(self.counts())
        for name in NAMES:
            self.scheduler.add_device(name, SIZES[name], AWAY)
        self.dispatch()

    @rule(
        requirement=st.sampled_from(REQUIREMENTS),
        count=st.sampled_from([1, 1, 1, 2 * READ_AHEAD]),
        priority=st.sampled_from([0, 0, -100, 1, 100]),
    )
    def accept(self, requirement: Requirement, count: int, priority: int) -> None:
        for _ in range(count):
            self.numbers += 1
            record = self.disk[self.numbers] = make_record(self.numbers, requirement, priority)
            claimed = self.scheduler.may_claim(record.asked)
            if claimed:
                self.claimed.add(record.number)
            self.scheduler.accept(record, claimed=claimed)
            self.dispatch()

    @rule(requirement=st.sampled_from(REQUIREMENTS), priority=st.sampled_from([0, 0, 1]), claims=st.booleans())
    def another_daemon_accepts(self, requirement: Requirement, priority: int, claims: bool) -> None:
        self.numbers += 1
        record = self.disk[self.numbers] = make_record(self.numbers, requirement, priority)
        if claims:
            self.claimed_by_another.add(record.number)
        self.scheduler.requeue(record)
        self.scheduler.report_free(record)
        self.dispatch()

    @precondition(lambda self: self.disk)
    @rule(pick=st.integers(0, 100))
    def another_daemon_claims(self, pick: int) -> None:
        number = list(self.disk)[pick % len(self.disk)]
        if number not in self.claimed:
            self.claimed_by_another.add(number)

    @precondition(lambda self: self.claimed_by_another)
    @rule(pick=st.integers(0, 100))
    def another_daemon_begins(self, pick: int) -> None:
        number = sorted(self.claimed_by_another)[pick % len(self.claimed_by_another)]
        self.claimed_by_another.remove(number)
        self.scheduler.begun(self.disk.pop(number))
        self.dispatch()

    @rule()
    def another_daemon_leaves(self) -> None:
        self.returned |= self.claimed_by_another
        self.claimed_by_another.clear()
        self.scheduler.look_for_free()
        self.dispatch()

    @rule(missed=st.integers(0, 5), requirement=st.sampled_from(REQUIREMENTS))
    def load_again(self, missed: int, requirement: Requirement) -> None:
        """Some changes of another daemon are not reported, and the tasks are counted again."""
        for _ in range(missed):
            self.numbers += 1
            self.disk[self.numbers] = make_record(self.numbers, requirement)
        for number in sorted(self.claimed_by_another)[:missed]:
            self.claimed_by_another.remove(number)
            del self.disk[number]
        self.scheduler.load(self.counts())
        self.dispatch()

    @rule(name=st.sampled_from(NAMES), state=STATES)
    def change_device(self, name: str, state: DeviceState) -> None:
        slots = self.scheduler.devices.get(name)
        if slots is None:
            self.scheduler.add_device(name, SIZES[name], state)
        else:
            self.scheduler.change_device(slots, state)
        self.dispatch()

    @rule(name=st.sampled_from(NAMES))
    def remove_device(self, name: str) -> None:
        slots = self.scheduler.devices.get(name)
        if slots is not None:
            self.scheduler.remove_device(slots)
            self.dispatch()

    @precondition(lambda self: self.taken)
    @rule(pick=st.integers(0, 100), comes_back=st.booleans())
    def end(self, pick: int, comes_back: bool) -> None:
        """A task ends; one that has not begun goes back to its queue, or begins and ends."""
        task = self.taken.pop(pick % len(self.taken))
        if not task.begun and not comes_back:
            self.write_begin(task)
        self.scheduler.release(task.slots)
        if not task.begun and task.record.number in self.disk:
            self.scheduler.put_back(task.record)
        self.dispatch()

    @precondition(lambda self: self.taken)
    @rule(pick=st.integers(0, 100))
    def begin_task(self, pick: int) -> None:
        self.write_begin(self.taken[pick % len(self.taken)])
        self.dispatch()

    def write_begin(self, task: Taken) -> None:
        if not task.begun and task.record.number in self.disk:
            task.begun = True
            del self.disk[task.record.number]
            self.begun.append(task.record.number)
            self.scheduler.begun(task.record)

    @precondition(lambda self: self.disk)
    # The oldest tasks are the ones in memory.
    @rule(pick=st.one_of(st.integers(0, 20), st.integers(0, 10_000)))
    def cancel(self, pick: int) -> None:
        number = list(self.disk)[pick % len(self.disk)]
        self.claimed_by_another.discard(number)
        self.scheduler.withdraw(self.disk.pop(number))
        self.dispatch()

    @precondition(lambda self: self.changing)
    @rule(pick=st.integers(0, 100))
    def change_claims(self, pick: int) -> None:
        queue, surplus = self.changing.pop(pick % len(self.changing))
        if surplus:
            self.claimed.difference_update(record.number for record in surplus)
        elif queue.room:
            limit = min(queue.room_to_claim, PAGE)
            free = [
                record
                for record in self.disk.values()
                if record.asked.requirement == queue.requirement
                and record.number not in self.claimed | self.claimed_by_another
            ]
            page = sorted(free, key=lambda record: record.rank)[:limit]
            self.claimed.update(record.number for record in page)
            self.scheduler.add_claimed(queue, page, is_last=len(page) < limit)
        self.scheduler.end_change(queue)
        self.dispatch()

    @precondition(lambda self: self.failing)
    @rule()
    def fail(self) -> None:
        queue = self.failing.pop()
        assert not any(
            slots.may_run(queue.requirement) for slots in self.scheduler.devices.values() if queue.has_no_candidate
        )
        if queue.has_no_candidate:
            for record in [other for other in self.disk.values() if other.asked.requirement == queue.requirement]:
                self.claimed_by_another.discard(record.number)
                self.scheduler.withdraw(self.disk.pop(record.number))
        queue.failing = False
        self.dispatch()

    @invariant()
    def each_task_begins_at_most_once(self) -> None:
        assert len(set(self.begun)) == len(self.begun)
        numbers = [task.record.number for task in self.taken]
        assert len(set(numbers)) == len(numbers)

    @invariant()
    def every_queued_task_is_counted(self) -> None:
        assert self.scheduler.queued == len(self.disk)
        for name in NAMES:
            assert self.scheduler.queued_for(name) == sum(record.asked.device == name for record in self.disk.values())

    @invariant()
    def a_free_slot_waits_only_for_the_disk(self) -> None:
        if self.limit is not None and len(self.taken) >= self.limit:
            return
        for slots in self.scheduler.devices.values():
            if slots.has_room and self.queued(slots):
                assert any(queue.changing for queue in slots.queues.values()), f"{slots.device_id} is idle"

    @invariant()
    def few_tasks_are_in_memory(self) -> None:
        for queue in self.scheduler.queues.values():
            assert queue.in_memory <= queue.room or queue.changing
            # While the claims are being changed, each higher priority may fill the room once more.
            assert queue.in_memory <= 4 * (sum(SIZES.values()) + READ_AHEAD)

    @invariant()
    def tasks_that_no_device_can_run_are_to_fail(self) -> None:
        for record in self.disk.values():
            queue = self.scheduler.queues[record.asked.requirement]
            if not any(slots.may_run(queue.requirement) for slots in self.scheduler.devices.values()):
                assert queue.failing

    def teardown(self) -> None:
        """When all devices are connected, and no other daemon has claims, every task ends."""
        self.another_daemon_leaves()
        for name in NAMES:
            self.change_device(
                name, DeviceState(connected=True, usable=True, known=True, os="linux", capabilities=frozenset())
            )
        # Each task ends once, and each claim but the last of a queue has tasks.
        steps = 2 * (len(self.disk) + len(self.taken) + len(REQUIREMENTS) + len(self.changing) + len(self.failing))
        while (self.taken or self.changing or self.failing) and steps:
            steps -= 1
            if self.failing:
                self.fail()
            elif self.changing:
                self.change_claims(0)
            else:
                self.end(0, comes_back=False)
        assert not self.disk
        assert steps


class ClusterSchedulerStates(SchedulerStates):
    """The scheduler of a daemon with others: tasks that name no device are claimed only for slots that are free."""

    is_alone = False


TestSchedulerStates = SchedulerStates.TestCase
TestSchedulerStates.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestClusterSchedulerStates = ClusterSchedulerStates.TestCase
TestClusterSchedulerStates.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
