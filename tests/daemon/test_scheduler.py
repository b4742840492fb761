"""The scheduler: which task goes to which device, and which tasks are in memory."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs
import pytest

import galaxy_trio.daemon.scheduler
from galaxy_trio.daemon.device_slots import DeviceState
from galaxy_trio.daemon.requirement_queue import READ_AHEAD, RequirementQueue
from galaxy_trio.daemon.scheduler import Scheduler
from galaxy_trio.daemon.store.records import Requirement, TaskRecord
from tests.daemon.support.scheduling import AWAY, PAGE, make_record

pytestmark = pytest.mark.daemon

NAMES: Final = ("a", "b", "c")


def _connected(*capabilities: str) -> DeviceState:
    return DeviceState(connected=True, usable=True, known=True, os="linux", capabilities=frozenset(capabilities))


def _take(scheduler: Scheduler) -> list[int]:
    return [record.number for record, _ in scheduler.take()]


def _accept(scheduler: Scheduler, *records: TaskRecord) -> None:
    for record in records:
        scheduler.accept(record, claimed=scheduler.may_claim(record.asked))


@pytest.mark.parametrize("younger", [Requirement("a"), Requirement(None, "linux")])
def test_a_free_device_waits_for_an_older_task_that_is_not_claimed_yet(younger: Requirement) -> None:
    scheduler = Scheduler()
    scheduler.load({Requirement(): 1, younger: 1})
    slots = scheduler.add_device("a", 1, _connected())
    older_queue, younger_queue = scheduler.check()[0]
    scheduler.add_claimed(younger_queue, [make_record(2, younger)], is_last=True)
    assert _take(scheduler) == []
    scheduler.add_claimed(older_queue, [make_record(1, Requirement())], is_last=True)
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
    # The queues are created in either order.
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


def test_claims_of_a_queue_leave_no_task_out_and_are_changed_one_by_one() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    records = [make_record(number, Requirement("a")) for number in range(1, 4 * READ_AHEAD)]
    _accept(scheduler, *records)
    free = records[scheduler.in_memory :]
    taken: list[int] = []
    while len(taken) < len(records):
        step = _take(scheduler)
        assert step, f"nothing follows {taken[-1:]}"
        taken += step
        for queue in scheduler.check()[0]:
            scheduler.check_all()
            assert scheduler.check() == ([], [])
            scheduler.add_claimed(queue, free[:PAGE], is_last=len(free) < PAGE)
            free = free[PAGE:]
            scheduler.end_change(queue)
        for _ in step:
            scheduler.release(slots)
    assert taken == [record.number for record in records]
    scheduler.check_all()
    assert scheduler.check() == ([], [])


def test_task_of_a_higher_priority_takes_the_place_of_a_claimed_one() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    _accept(scheduler, *(make_record(number, Requirement("a")) for number in range(1, 3 * READ_AHEAD)))
    assert _take(scheduler) == [1]
    _accept(scheduler, *(make_record(100 + priority, Requirement("a"), priority) for priority in range(3)))
    [queue] = scheduler.check()[0]
    # There was room for one of the two; the last of the others is free then.
    assert [record.number for record in queue.take_surplus()] == [slots.size + READ_AHEAD]
    for number in (102, 101, 2):
        scheduler.release(slots)
        assert _take(scheduler) == [number]


def test_claimed_tasks_that_a_burst_of_a_higher_priority_replaces_are_as_many_as_there_is_room() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, _connected())
    for priority in (0, 1):
        _accept(scheduler, *(make_record(priority * 100 + number, Requirement("a"), priority) for number in range(100)))
    assert scheduler.in_memory == 2 * (1 + READ_AHEAD)


def test_task_that_is_reported_free_while_others_are_claimed_is_claimed_next() -> None:
    scheduler = Scheduler()
    scheduler.load({Requirement("a"): 1})
    scheduler.add_device("a", 2, _connected())
    [queue] = scheduler.check()[0]
    reported = make_record(2, Requirement("a"))
    scheduler.requeue(reported)
    # The claim that is on its way was made before this task was accepted.
    scheduler.report_free(reported)
    scheduler.add_claimed(queue, [make_record(1, Requirement("a"))], is_last=True)
    assert _take(scheduler) == [1]
    scheduler.end_change(queue)
    assert scheduler.check()[0] == [queue]
    scheduler.add_claimed(queue, [reported], is_last=True)
    scheduler.end_change(queue)
    assert _take(scheduler) == [2]


def test_free_task_that_goes_before_all_claimed_ones_is_claimed_although_there_is_no_room() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, _connected())
    _accept(scheduler, *(make_record(number, Requirement("a")) for number in range(1, 2 + READ_AHEAD)))
    urgent = make_record(100, Requirement("a"), priority=1)
    scheduler.requeue(urgent)
    scheduler.report_free(urgent)
    assert _take(scheduler) == []
    [queue] = scheduler.check()[0]
    assert queue.take_surplus() == []
    assert queue.room_to_claim == (queue.room + 1) // 2
    scheduler.add_claimed(queue, [urgent], is_last=True)
    scheduler.end_change(queue)
    assert _take(scheduler) == [100]


def test_claims_that_are_given_back_are_claimed_again_when_the_device_is_back() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, _connected())
    _accept(scheduler, make_record(1, Requirement("a")))
    scheduler.change_device(slots, AWAY)
    [queue] = scheduler.check()[0]
    assert [record.number for record in queue.take_surplus()] == [1]
    scheduler.end_change(queue)
    assert scheduler.check() == ([], [])
    scheduler.change_device(slots, _connected())
    assert scheduler.check()[0] == [queue]
    scheduler.add_claimed(queue, [make_record(1, Requirement("a"))], is_last=True)
    scheduler.end_change(queue)
    # All queued tasks are claimed: there is nothing to look for.
    scheduler.look_for_free()
    assert scheduler.check() == ([], [])
    assert _take(scheduler) == [1]


def test_claim_that_finds_nothing_is_repeated_only_after_a_further_report() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, _connected())
    elsewhere = make_record(1, Requirement("a"))
    scheduler.requeue(elsewhere)
    scheduler.report_free(elsewhere)
    for _ in range(2):
        [queue] = scheduler.check()[0]
        scheduler.add_claimed(queue, [], is_last=True)
        scheduler.end_change(queue)
        scheduler.check_all()
        assert scheduler.check() == ([], [])
        scheduler.look_for_free()
    [queue] = scheduler.check()[0]
    scheduler.add_claimed(queue, [], is_last=True)
    scheduler.end_change(queue)
    # The task that another daemon has claimed delays no later one.
    _accept(scheduler, make_record(2, Requirement("a")))
    assert _take(scheduler) == [2]


def test_idle_device_goes_before_a_busy_one_and_the_longest_free_one_goes_first() -> None:
    scheduler = Scheduler()
    for name in NAMES:
        scheduler.add_device(name, 2, _connected())
    chosen: list[str] = []
    for number in range(1, 7):
        _accept(scheduler, make_record(number, Requirement()))
        chosen += [slots.device_id for _, slots in scheduler.take()]
    assert chosen == ["a", "b", "c", "a", "b", "c"]
    scheduler.release(scheduler.devices["c"])
    scheduler.release(scheduler.devices["b"])
    scheduler.release(scheduler.devices["b"])
    _accept(scheduler, make_record(7, Requirement()))
    assert [slots.device_id for _, slots in scheduler.take()] == ["b"]


def test_task_waits_for_a_device_that_may_still_turn_out_to_fit() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, AWAY)
    _accept(scheduler, make_record(1, Requirement(None, "windows", ("excel",))))
    assert scheduler.check() == ([], [])
    scheduler.change_device(slots, _connected("cli"))
    assert [queue.requirement.os for queue in scheduler.check()[1]] == ["windows"]


def test_task_does_not_wait_for_its_device_after_reconnecting_was_given_up() -> None:
    scheduler = Scheduler()
    slots = scheduler.add_device("a", 1, AWAY)
    _accept(scheduler, make_record(1, Requirement("a")))
    assert scheduler.check() == ([], [])
    scheduler.change_device(slots, attrs.evolve(AWAY, usable=False))
    assert [queue.requirement.device for queue in scheduler.check()[1]] == ["a"]


def test_number_of_requirements_is_limited_and_requirements_without_tasks_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "MAX_QUEUES", 5)
    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "_MAX_EMPTY_QUEUES", 2)
    scheduler = Scheduler()
    scheduler.add_device("a", 1, AWAY)
    needs = [Requirement(None, None, (f"c{number}",)) for number in range(7)]
    for number in range(5):
        assert scheduler.has_queue_for(needs[number])
        _accept(scheduler, make_record(number, needs[number]))
    assert not scheduler.has_queue_for(needs[5])
    assert scheduler.has_queue_for(needs[0])
    assert scheduler.has_queue_for(Requirement("a"))
    scheduler.withdraw(make_record(3, needs[3]))
    assert scheduler.has_queue_for(needs[5])
    _accept(scheduler, make_record(6, needs[5]))
    assert scheduler.queued == 5


def test_queues_without_tasks_are_dropped() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, AWAY)
    for number in range(1_000):
        record = make_record(number, Requirement(None, None, (f"c{number}",)))
        _accept(scheduler, record)
        scheduler.withdraw(record)
    assert len(scheduler.queues) < 300


def test_work_for_many_requirements_grows_in_proportion_to_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Counter[str]()

    class CountedQueue(RequirementQueue):
        def __getattribute__(self, name: str) -> object:
            looks["all"] += 1
            return super().__getattribute__(name)

    def work(number: int) -> int:
        looks.clear()
        scheduler = Scheduler(is_alone=False)
        capabilities = [f"c{index}" for index in range(number)]
        devices = [scheduler.add_device(name, 1, _connected(*capabilities)) for name in NAMES]
        records = [make_record(index, Requirement(None, None, (name,))) for index, name in enumerate(capabilities)]
        for record in records:
            scheduler.requeue(record)
            scheduler.report_free(record)
        for slots, record in zip(devices, records, strict=False):
            assert _take(scheduler) == []
            [queue] = scheduler.check()[0]
            scheduler.add_claimed(queue, [record], is_last=True)
            assert _take(scheduler) == [record.number]
            scheduler.end_change(queue)
            scheduler.release(slots)
        return looks["all"]

    monkeypatch.setattr(galaxy_trio.daemon.scheduler, "RequirementQueue", CountedQueue)
    assert work(800) < 10 * work(100)


def test_the_only_free_slot_gets_a_free_task_that_goes_before_the_claimed_one() -> None:
    scheduler = Scheduler(is_alone=False)
    later, urgent = make_record(1, Requirement()), make_record(2, Requirement(), 1)
    scheduler.requeue(later)
    scheduler.report_free(later)
    scheduler.add_device("a", 1, _connected())
    [queue] = scheduler.check()[0]
    # Another daemon accepts the urgent one while the other one is being claimed.
    scheduler.requeue(urgent)
    scheduler.report_free(urgent)
    scheduler.add_claimed(queue, [later], is_last=True)
    scheduler.end_change(queue)
    assert _take(scheduler) == []
    assert scheduler.check()[0] == [queue]
    assert queue.room_to_claim == 1
    scheduler.add_claimed(queue, [urgent], is_last=True)
    scheduler.end_change(queue)
    assert _take(scheduler) == [2]
    # There is no room for the later one any more, which another daemon may take.
    assert scheduler.check()[0] == [queue]
    assert queue.take_surplus() == [later]


def test_task_whose_acceptance_was_missed_goes_before_claimed_ones_of_lower_priority() -> None:
    scheduler = Scheduler()
    scheduler.add_device("a", 1, _connected())
    later = [make_record(number, Requirement("a"), priority=-1) for number in range(1, 3)]
    missed = make_record(3, Requirement("a"))
    _accept(scheduler, *later)
    scheduler.load({Requirement("a"): 3})
    assert _take(scheduler) == []
    [queue] = scheduler.check()[0]
    scheduler.add_claimed(queue, [missed], is_last=True)
    scheduler.end_change(queue)
    assert _take(scheduler) == [3]
