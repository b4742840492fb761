"""A short soak, and proof that a soak's checks find what they are for."""

from __future__ import annotations

import pytest

from tests.soak.journals import Ending, Journals, broken_promises
from tests.soak.samples import Sample, growth_of, leaks_of, table_of
from tests.soak.soak import soak

_SAMPLE = Sample(memory=50, descriptors=100, threads=4, tasks=500)


@pytest.mark.slow
async def test_tasks_run_once_and_nothing_leaks_under_faults() -> None:
    result = await soak(seconds=12, devices=20, faults_per_second=8, seed=1)
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
    assert found.startswith(f"{figure} of the server grew from ")


def _figures() -> dict[str, float]:
    return {"memory": 50, "descriptors": 100, "threads": 4, "tasks": 500}


def test_growth_in_the_first_half_is_the_warm_up() -> None:
    samples = [Sample(50 + min(number, 20), 100, 4, 500) for number in range(40)]
    assert growth_of("server", samples) == []
    assert "| server | memory (MiB) | 54 | 64 | 70 | 70 |" in table_of({"server": samples})


def test_leaked_descriptor_or_task_of_an_idle_process_is_found() -> None:
    assert leaks_of("server", _SAMPLE, _SAMPLE) == []
    more = Sample(memory=90, descriptors=101, threads=9, tasks=501)
    assert leaks_of("server", _SAMPLE, more) == [
        "the idle server has 101 descriptors after the load, 100 before it",
        "the idle server has 501 tasks after the load, 500 before it",
    ]
