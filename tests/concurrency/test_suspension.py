"""Suspended processes and sleeping machines are noticed by their clocks."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing

from galaxy_trio._concurrency import suspension
from galaxy_trio._concurrency.suspension import wait_machine_woken, with_grace
from tests.support.machine_sleep import MachineSleep


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> MachineSleep:
    return MachineSleep(monkeypatch)


async def _record(since: float, woken: list[float]) -> None:
    await wait_machine_woken(since)
    woken.append(trio.current_time())


@pytest.mark.parametrize(("late", "granted"), [(0, 50), (0.9, 50), (1.1, 56.1), (300, 355)])
async def test_deadline_moves_only_for_a_task_that_runs_more_than_a_second_after_it(
    late: float, granted: float, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.jump(50 + late)
    assert with_grace(50) == pytest.approx(granted)


async def test_all_waiting_tasks_are_woken_within_a_second_of_the_machines_sleep(
    machine: MachineSleep, autojump_clock: trio.testing.MockClock
) -> None:
    woken: list[float] = []
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(_record, 0.0, woken)
        await trio.sleep(100.5)
        assert woken == []
        machine.sleep(240)
    assert woken == [101.0] * 100


async def test_many_waiting_tasks_look_at_the_clocks_only_once_a_second(
    machine: MachineSleep, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(wait_machine_woken, 0.0)
        await trio.sleep(10.5)
        before = machine.looks
        await trio.sleep(1000)
        assert machine.looks - before == 1000
        nursery.cancel_scope.cancel()


async def test_no_task_misses_the_sleep_when_others_are_cancelled(
    machine: MachineSleep, autojump_clock: trio.testing.MockClock
) -> None:
    async def wait(scope: trio.CancelScope, since: float, woken: list[float]) -> None:
        with scope:
            await _record(since, woken)

    for seed in range(30):
        random = Random(seed)
        scopes = [trio.CancelScope() for _ in range(10)]
        woken: list[float] = []
        slept_at = 0.0
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for scope in scopes:
                    nursery.start_soon(wait, scope, suspension.time_asleep(), woken)
                await trio.testing.wait_all_tasks_blocked()
                random.shuffle(scopes)
                for scope in scopes[:-1]:
                    # Several in one step, or one after another; before and after the machine has slept.
                    scope.cancel()
                    if random.random() < 0.5:
                        await trio.sleep(random.choice([0, 0.3]))
                    if scope is scopes[5]:
                        machine.sleep(30)
                        slept_at = trio.current_time()
        assert slept_at <= woken[0] <= woken[-1] <= slept_at + 1


async def test_sleep_before_the_wait_counts_once(machine: MachineSleep, autojump_clock: trio.testing.MockClock) -> None:
    before = suspension.time_asleep()
    machine.sleep(5)
    with trio.fail_after(0.5):
        now = await wait_machine_woken(before)
    with trio.move_on_after(10) as waiting:
        await wait_machine_woken(now)
    assert waiting.cancelled_caught


@pytest.mark.parametrize("seconds", [0.9, -3600])
async def test_clock_that_differs_little_or_is_set_back_wakes_no_task(
    seconds: float, machine: MachineSleep, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(10) as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_machine_woken, 0.0)
            await trio.sleep(3)
            machine.sleep(seconds)
    assert waiting.cancelled_caught


def test_the_systems_clocks_agree_while_the_machine_is_awake() -> None:
    assert suspension.time_asleep() - suspension.time_asleep() == pytest.approx(0, abs=0.5)
