"""Simulated runs keep all promises, and are reproducible."""

from __future__ import annotations

import hashlib
from typing import Final

import pytest

from tests.simulation.digests import digests
from tests.simulation.mutations import route_by_kind
from tests.simulation.run import simulate
from tests.simulation.simulate import main, report_of, summary_of

pytestmark = pytest.mark.simulation

# The seeds are divided into parts, which may run concurrently.
SEEDS: Final = 200
_PARTS: Final = 10


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_promise_is_kept(part: int) -> None:
    for seed in range(part, SEEDS, _PARTS):
        run = simulate(seed)
        assert not run.broken, report_of(run)


def test_task_that_got_its_slot_in_the_step_of_a_disconnect_waits() -> None:
    # The seed that found it: the task waited for the limit of all devices when its device was disconnected.
    assert not simulate(805585).broken


def test_seed_gives_the_same_run_byte_for_byte_in_every_process() -> None:
    here = [hashlib.sha256(str(simulate(seed).journal).encode()).hexdigest() for seed in range(12)]
    assert digests(simulate, 12, "1") == digests(simulate, 12, "2") == here
    assert len(set(here)) == 12


def test_broken_promise_is_reported_with_its_plan_and_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with route_by_kind():
        summary = summary_of(simulate(4))
        assert "BROKEN: " in summary.report
        assert summary.report.startswith("seed 4\n")
        assert "nox -s simulate -- --first-seed 4 --seeds 1\n" in summary.report
        # One job runs in this process, which has the mutation.
        assert main(["--first-seed", "4", "--seeds", "1", "--jobs", "1"]) == 1
    assert "BROKEN: " in capsys.readouterr().out


def test_command_line_counts_the_contents_of_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--first-seed", "3", "--jobs", "1", "--journal"]) == 0
    out = capsys.readouterr().out
    assert " caller calls r" in out
    assert "1 seeds in " in out
    assert out.endswith("Every promise was kept.\n")
