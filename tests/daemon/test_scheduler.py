"""The daemon's scheduler, compared with a model that has all tasks in memory: the oldest task is first, with most tasks on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import galaxy_trio.daemon.scheduler
from galaxy_trio.daemon.device_slots import DeviceSlots, DeviceState
from galaxy_trio.daemon.requirement_queue import READ_AHEAD, RequirementQueue
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store.records import Requirement, TaskRecord, TaskRequest, TaskState

pytestmark = pytest.mark.daemon

NAMES: Final = ("a", "b", "c")
SIZES: Final = {"a": 1, "b": 2, "c": 3}
MAX_RUNNING: Final = 4
AWAY: Final = DeviceState(connected=False, usable=True, known=False, os=None, capabilities=frozenset())
PAGE: Final = 6
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


def make_record(number: int, requirement: Requirement) -> TaskRecord:
    asked = TaskRequest("x", requirement.device, requirement.os, requirement.capabilities)
    return TaskRecord(f"t{number}", asked, TaskState.QUEUED, datetime(2026, 1, 1, tzinfo=UTC), number=number)


# ---- single cases, first: they fail within a second, a random history is shrunk for minutes


def _connected(*capabilities: str) -> DeviceState:
    return DeviceState(connected=True, usable=True, known=True, os="linux", capabilities=frozenset(capabilities))


def _take(scheduler: Scheduler) -> list[int]:
    return [record.number for record, _ in scheduler.take()]


def _accept(scheduler: Scheduler, *records: TaskRecord) -> None:
    for record in records:
        scheduler.accept(record)


@pytest.mark.parametrize("younger", [Requirement("a"), Requirement(None, "linux")])
def test_a_free_device_waits_for_an_older_task_that_is_still_on_disk(younger: Requirement) -> None:
    scheduler = Scheduler()
    scheduler.load(Requirement(), 1)
    scheduler.load(younger, 1)
    slots = scheduler.add_device("a", 1, _connected())
    older_queue, younger_queue = scheduler.check()[0]
    scheduler.add_page(younger_queue, [make_record(2, younger)], is_last=True)
    assert _take(scheduler) == []
    scheduler.add_page(older_queue, [make_record(1, Requirement())], is_last=True)
    assert _take(scheduler) == [1]
    scheduler.release(slots)
    assert _take(scheduler) == [2]


@pytest.mark.parametrize("numbers", [(2, 3), (3, 2)])
def test_a_device_takes_the_oldest_task_of_all_its_queues(numbers: tuple[int, int]) -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    _accept(scheduler, make_record(1, Requirement("a")))
    assert _take(scheduler) == [1]
    needs = dict(zip(numbers, [Requirement(), Requirement(None, "linux")], strict=True))
    # The queues exist in either order.
    _accept(scheduler, *(make_record(number, needs[number]) for number in sorted(numbers)))
    _accept(scheduler, make_record(4, Requirement("a")))
    order: list[int] = []
    for _ in range(3):
        scheduler.release(slots)
        order += _take(scheduler)
    assert order == [2, 3, 4]


def test_devices_that_become_free_take_the_oldest_tasks_of_any_queue() -> None:
    scheduler = Scheduler()
    devices = [scheduler.add_device(name, 1, _connected()) for name in ("a", "b")]
    _accept(scheduler, make_record(1, Requirement(None, "linux")), make_record(2, Requirement()))
    assert _take(scheduler) == [1, 2]
    _accept(scheduler, make_record(3, Requirement()), make_record(4, Requirement(None, "linux")))
    assert _take(scheduler) == []
    for slots in devices:
        scheduler.release(slots)
    assert _take(scheduler) == [3, 4]


def test_total_limit_bounds_the_tasks_that_have_a_slot() -> None:
    scheduler = Scheduler(max_running=2)
    devices = [scheduler.add_device(name, 2, _connected()) for name in ("a", "b")]
    _accept(scheduler, *(make_record(number, Requirement()) for number in range(1, 5)))
    assert _take(scheduler) == [1, 2]
    scheduler.release(devices[0])
    assert _take(scheduler) == [3]


def test_task_that_did_not_begin_returns_to_its_place_in_the_queue() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    records = [make_record(number, Requirement("a")) for number in range(1, 4)]
    _accept(scheduler, *records)
    assert _take(scheduler) == [1]
    scheduler.release(slots)
    scheduler.put_back(records[0])
    assert _take(scheduler) == [1]


def test_withdrawn_task_leaves_memory_and_is_never_taken() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    records = [make_record(number, Requirement("a")) for number in range(1, 4)]
    _accept(scheduler, *records)
    assert _take(scheduler) == [1]
    scheduler.withdraw(records[1])
    assert (scheduler.in_memory, scheduler.queued) == (1, 2)
    scheduler.release(slots)
    assert _take(scheduler) == [3]


def test_accepted_task_stays_on_disk_when_the_queue_has_no_room_in_memory() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, AWAY)
    slots = scheduler.add_device("b", 1, _connected())
    _accept(scheduler, make_record(1, Requirement("a")))
    assert scheduler.in_memory == 0
    _accept(scheduler, *(make_record(number, Requirement("b")) for number in range(2, 4 * READ_AHEAD)))
    assert scheduler.in_memory == slots.size + READ_AHEAD
    assert scheduler.queued == 4 * READ_AHEAD - 1


def test_pages_of_a_queue_have_no_gap_and_no_overlap() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    records = [make_record(number, Requirement("a")) for number in range(1, 4 * READ_AHEAD)]
    _accept(scheduler, *records)
    taken: list[int] = []
    pages: list[int] = []
    while len(taken) < len(records):
        step = _take(scheduler)
        assert step, f"nothing follows {taken[-1:]}"
        taken += step
        to_read, _ = scheduler.check()
        for queue in to_read:
            # While a page is read, no second one is asked for.
            scheduler.check_all()
            assert scheduler.check() == ([], [])
            rest = records[queue.known_up_to :]
            pages += [record.number for record in rest[:PAGE]]
            scheduler.add_page(queue, rest[:PAGE], is_last=len(rest) <= PAGE)
        for _ in step:
            scheduler.release(slots)
    assert taken == [record.number for record in records]
    # The first ones were in memory since they were accepted.
    assert pages == taken[1 + slots.size + READ_AHEAD - 1 :]
    scheduler.check_all()
    assert scheduler.check() == ([], [])


def test_idle_device_goes_before_a_busy_one_and_the_longest_free_one_goes_first() -> None:
    scheduler = Scheduler()
    for name in NAMES:
        scheduler.add_device(name, 2, _connected())
    chosen: list[str] = []
    for number in range(1, 7):
        scheduler.accept(make_record(number, Requirement()))
        chosen += [slots.device_id for _, slots in scheduler.take()]
    assert chosen == ["a", "b", "c", "a", "b", "c"]
    scheduler.release(scheduler.devices["c"])
    scheduler.release(scheduler.devices["b"])
    scheduler.release(scheduler.devices["b"])
    scheduler.accept(make_record(7, Requirement()))
    assert [slots.device_id for _, slots in scheduler.take()] == ["b"]


def test_task_waits_for_a_device_that_may_still_turn_out_to_fit() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, AWAY)
    scheduler.accept(make_record(1, Requirement(None, "windows", ("excel",))))
    assert scheduler.check() == ([], [])
    scheduler.change_device(slots, _connected("cli"))
    assert [queue.requirement.os for queue in scheduler.check()[1]] == ["windows"]


def test_task_does_not_wait_for_its_device_after_reconnecting_was_given_up() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, AWAY)
    scheduler.accept(make_record(1, Requirement("a")))
    assert scheduler.check() == ([], [])
    scheduler.change_device(slots, attrs.evolve(AWAY, usable=False))
    assert [queue.requirement.device for queue in scheduler.check()[1]] == ["a"]


def test_number_of_requirements_is_limited_and_requirements_without_tasks_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "MAX_QUEUES", 5)
    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "_MAX_EMPTY_QUEUES", 2)
    scheduler = Scheduler()
    scheduler.add_device("a", 1, AWAY)
    needs = [Requirement(None, None, (f"c{number}",)) for number in range(7)]
    for number in range(5):
        assert scheduler.has_queue_for(needs[number])
        scheduler.accept(make_record(number, needs[number]))
    assert not scheduler.has_queue_for(needs[5])
    assert scheduler.has_queue_for(needs[0])
    assert scheduler.has_queue_for(Requirement("a"))
    scheduler.withdraw(make_record(3, needs[3]))
    assert scheduler.has_queue_for(needs[5])
    scheduler.accept(make_record(6, needs[5]))
    assert needs[3] not in scheduler.queues
    assert scheduler.queued == 5


# ---- random histories


@attrs.define(eq=False)
class Taken:
    """A task that has a slot."""

    record: TaskRecord
    slots: DeviceSlots
    begun: bool = False


class SchedulerStates(RuleBasedStateMachine):
    """A scheduler, the tasks on disk, and those that have a slot."""

    def __init__(self) -> None:
        super().__init__()
        self.limit: int | None = None
        self.begin()

    def begin(self) -> None:
        """Start a new daemon."""
        self.scheduler = Scheduler(self.limit)
        self.taken: list[Taken] = []
        self.reading: list[RequirementQueue] = []
        self.failing: list[RequirementQueue] = []
        if not hasattr(self, "disk"):
            # The queued tasks on disk, by number.
            self.disk: dict[int, TaskRecord] = {}
            self.numbers = 0
            self.begun: list[int] = []

    def dispatch(self) -> None:
        """Take the tasks and queues that the scheduler returns, and check each of them."""
        for record, slots in self.scheduler.take():
            assert record.number in self.disk, f"{slots.device_id} took {record.number}, which has ended"
            assert slots.state.connected
            assert slots.taken <= slots.size
            older = [other for other in self.queued(slots) if other.number < record.number]
            assert not older, f"{slots.device_id} took {record.number} before {older[0].number}"
            assert slots.can_run(record.asked.requirement)
            self.taken.append(Taken(record, slots))
            assert len(self.taken) <= (self.limit or len(self.taken))
        to_read, to_fail = self.scheduler.check()
        assert not set(to_read) & set(self.reading), "a page is read twice"
        assert not set(to_fail) & set(self.failing), "tasks are failed twice"
        self.reading += to_read
        self.failing += to_fail

    def queued(self, slots: DeviceSlots) -> list[TaskRecord]:
        """The queued tasks that a device can run and that have no slot."""
        taken = {task.record.number for task in self.taken if not task.begun}
        return [
            record
            for record in self.disk.values()
            if record.number not in taken and slots.can_run(record.asked.requirement)
        ]

    # ---- rules

    @rule(limit=st.sampled_from([None, MAX_RUNNING]))
    def restart(self, limit: int | None) -> None:
        self.limit = limit
        self.begin()
        counts: dict[Requirement, int] = {}
        for record in self.disk.values():
            counts[record.asked.requirement] = counts.get(record.asked.requirement, 0) + 1
        for requirement, count in counts.items():
            self.scheduler.load(requirement, count)
        for name in NAMES:
            self.scheduler.add_device(name, SIZES[name], AWAY)
        self.dispatch()

    @rule(requirement=st.sampled_from(REQUIREMENTS), count=st.sampled_from([1, 1, 1, 2 * READ_AHEAD]))
    def accept(self, requirement: Requirement, count: int) -> None:
        for _ in range(count):
            self.numbers += 1
            record = self.disk[self.numbers] = make_record(self.numbers, requirement)
            self.scheduler.accept(record)
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
        self.scheduler.withdraw(self.disk.pop(list(self.disk)[pick % len(self.disk)]))
        self.dispatch()

    @precondition(lambda self: self.reading)
    @rule(pick=st.integers(0, 100))
    def read_page(self, pick: int) -> None:
        queue = self.reading.pop(pick % len(self.reading))
        records = [
            record
            for record in self.disk.values()
            if record.asked.requirement == queue.requirement and record.number > queue.known_up_to
        ]
        self.scheduler.add_page(queue, records[:PAGE], is_last=len(records) < PAGE)
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
                self.scheduler.withdraw(self.disk.pop(record.number))
        queue.failing = False
        self.dispatch()

    # ---- invariants

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
                assert any(queue.reading for queue in slots.queues.values()), f"{slots.device_id} is idle"

    @invariant()
    def few_tasks_are_in_memory(self) -> None:
        slots = sum(SIZES.values())
        for queue in self.scheduler.queues.values():
            # Tasks that come back without having begun are added to those that were read.
            assert queue.in_memory <= 2 * slots + READ_AHEAD

    @invariant()
    def tasks_that_no_device_can_run_are_to_fail(self) -> None:
        for record in self.disk.values():
            queue = self.scheduler.queues[record.asked.requirement]
            if not any(slots.may_run(queue.requirement) for slots in self.scheduler.devices.values()):
                assert queue.failing

    def teardown(self) -> None:
        """When all devices are connected, every task ends."""
        for name in NAMES:
            self.change_device(
                name, DeviceState(connected=True, usable=True, known=True, os="linux", capabilities=frozenset())
            )
        # Each task ends once, and each page but the last of a queue has tasks.
        steps = 2 * (len(self.disk) + len(self.taken) + len(REQUIREMENTS) + len(self.reading) + len(self.failing))
        while (self.taken or self.reading or self.failing) and steps:
            steps -= 1
            if self.failing:
                self.fail()
            elif self.reading:
                self.read_page(0)
            else:
                self.end(0, comes_back=False)
        assert not self.disk
        assert steps


TestSchedulerStates = SchedulerStates.TestCase
TestSchedulerStates.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
