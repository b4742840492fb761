"""A short soak, and proof that a soak's checks find what they are for."""

from __future__ import annotations

from unittest import mock

import attrs
import pytest

from tests.soak.journals import Ending, Journals, broken_promises
from tests.soak.processes import Process, SoakEnded
from tests.soak.samples import BLOCKS, Idle, Sample, growth_of, leaks_of, table_of
from tests.soak.soak import SHORT, soak

_SAMPLE = Sample(memory=50, descriptors=100, threads=4, tasks=500)


@pytest.mark.slow
async def test_tasks_run_once_and_nothing_leaks_under_faults() -> None:
    result = await soak(*SHORT)
    assert not result.problems, str(result)
    assert len(result.faults) > 3


def _journals(ending: Ending, *, sessions: int = 1, begun: int = 1, done: int = 1) -> Journals:
    """Make the journals of a task that was done, and of one more with these entries."""
    journals = Journals(submitted=2)
    journals.endings[0:2] = bytes((Ending.COMPLETED, ending))
    for number, counts in enumerate(((1, 1, 1), (sessions, begun, done))):
        for journal, count in zip((journals.sessions, journals.begun, journals.done), counts, strict=True):
            for _ in range(count):
                journal.add(number)
    return journals


@pytest.mark.parametrize("ending", [Ending.COMPLETED, Ending.LOST, Ending.CANCELLED, Ending.TIMED_OUT, Ending.FAILED])
def test_task_that_was_done_once_breaks_no_promise_whatever_its_caller_knows(ending: Ending) -> None:
    assert broken_promises(_journals(ending)) == []


@pytest.mark.parametrize(
    ("journals", "problem"),
    [
        (_journals(Ending.NONE), "have no ending"),
        (_journals(Ending.LOST, begun=2), "began twice"),
        (_journals(Ending.LOST, sessions=2), "began twice"),
        (_journals(Ending.COMPLETED, done=0), "were not done by their device"),
        (_journals(Ending.COMPLETED, begun=0, done=0), "were not done by their device"),
        (_journals(Ending.WRONG), "got another task's result"),
        (_journals(Ending.REJECTED), "were rejected and ran"),
    ],
)
def test_broken_promise_is_found(journals: Journals, problem: str) -> None:
    [found] = broken_promises(journals)
    assert problem in found
    assert found.endswith(": 1")


def test_soak_without_completed_tasks_is_not_passed() -> None:
    journals = Journals(submitted=1)
    journals.endings[0] = Ending.REJECTED
    assert broken_promises(journals) == ["no task was completed"]


@pytest.mark.parametrize(("figure", "step"), [("memory", 2), ("descriptors", 4), ("threads", 2), ("tasks", 20)])
def test_growth_in_the_second_half_is_found(figure: str, step: float) -> None:
    samples = [
        Sample(**{**_figures(), figure: _figures()[figure] + step * max(number - 20, 0)})  # type: ignore[arg-type]
        for number in range(40)
    ]
    [found] = growth_of("server", samples)
    assert found.startswith(f"{figure} in the process of the server grew from ")


def _figures() -> dict[str, float]:
    return {"memory": 50, "descriptors": 100, "threads": 4, "tasks": 500}


def test_growth_in_the_first_half_is_the_warm_up() -> None:
    samples = [Sample(50 + min(number, 20), 100, 4, 500) for number in range(40)]
    assert growth_of("server", samples) == []
    assert "| server | memory (MiB) | 54 | 64 | 70 | 70 |" in table_of({"server": samples})


_BEFORE = Idle(_SAMPLE, {BLOCKS: 10_000, "galaxy_trio.Connection": 20})


@pytest.mark.parametrize(
    ("after", "more"),
    [
        (attrs.evolve(_BEFORE, sample=attrs.evolve(_SAMPLE, descriptors=101)), "101 descriptors (100 before)"),
        (attrs.evolve(_BEFORE, sample=attrs.evolve(_SAMPLE, threads=5)), "5 threads (4 before)"),
        (attrs.evolve(_BEFORE, sample=attrs.evolve(_SAMPLE, tasks=501)), "501 tasks (500 before)"),
        (Idle(_SAMPLE, {BLOCKS: 11_001}), "11,001 blocks of memory (10,000 before)"),
        (
            Idle(_SAMPLE, {BLOCKS: 11_001, "trio.Event": 99, "galaxy_trio.A": 11, "galaxy_trio.B": 12}),
            "11,001 blocks of memory (10,000 before), 12 galaxy_trio.B (0 before), 11 galaxy_trio.A (0 before), 99 trio.Event (0 before)",
        ),
        (
            Idle(_SAMPLE, {BLOCKS: 10_000, **{f"trio.A{number}": 11 for number in range(10)}}),
            f"{', '.join(f'11 trio.A{number} (0 before)' for number in range(8))}, and more of 2 other classes",
        ),
    ],
)
def test_what_an_idle_process_has_more_of_is_found(after: Idle, more: str) -> None:
    [found] = leaks_of("server", _BEFORE, after, devices=10)
    assert found == f"the idle process of the server has more than before the load: {more}"


def test_idle_process_may_have_one_more_object_of_a_class_for_each_device() -> None:
    after = Idle(
        attrs.evolve(_SAMPLE, memory=90), {BLOCKS: 11_000, "galaxy_trio.Connection": 30, "galaxy_trio.Device": 10}
    )
    assert leaks_of("server", _BEFORE, after, devices=10) == []
    assert leaks_of("server", after, _BEFORE, devices=10) == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (SoakEnded("the process of the server has ended"), "the process of the server has ended"),
        (KeyError("a"), "the process of the constellations has crashed: KeyError: 'a'"),
    ],
)
async def test_crash_of_a_process_is_a_problem(error: Exception, problem: str) -> None:
    with mock.patch.object(Process, "report", side_effect=error):
        result = await soak(seconds=1, devices=1, faults_per_second=1, seed=1)
    assert result.problems == [problem]
    assert str(result).endswith(problem)
