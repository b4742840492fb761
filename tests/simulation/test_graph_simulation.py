"""Simulated runs of task graphs keep all promises, and are reproducible."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.simulation.graphs.mutations import GRAPH_MUTATIONS, pass_no_skip_on
from tests.simulation.graphs.run import simulate_graph
from tests.simulation.simulate import main, report_of
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.simulation.patching import Mutation

pytestmark = pytest.mark.simulation

# The seeds are divided into parts, which may run concurrently.
SEEDS: Final = 100
_PARTS: Final = 5
_SEEDS_OF_MUTATION: Final = 50


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_promise_of_graphs_is_kept(part: int) -> None:
    for seed in range(part, SEEDS, _PARTS):
        run = simulate_graph(seed)
        assert not run.broken, report_of(run)


@pytest.mark.parametrize("mutation", GRAPH_MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_simulation_of_graphs_finds_the_mutation(mutation: Mutation) -> None:
    with mutation():
        assert any(simulate_graph(seed).broken for seed in range(_SEEDS_OF_MUTATION))


def _digests(hash_seed: str) -> str:
    """Run a few seeds in a separate process with a different order of sets, and return the digests of the journals."""
    program = (
        "import hashlib\n"
        "from tests.simulation.graphs.run import simulate_graph\n"
        "for seed in range(8):\n"
        "    print(hashlib.sha256(str(simulate_graph(seed).journal).encode()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603  # this program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_seed_of_a_graph_gives_the_same_run_byte_for_byte_in_every_process() -> None:
    digests = _digests("1").split()
    assert digests == _digests("2").split()
    assert len(set(digests)) == 8


def test_broken_promise_of_a_graph_is_reported_with_its_plan_and_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pass_no_skip_on():
        # One job runs in this process, which has the mutation.
        assert main(["--graphs", "--seeds", "1", "--jobs", "1", "--journal"]) == 1
    out = capsys.readouterr().out
    assert "graph NodeStarted n0" in out
    assert "node n0 " in out
    assert "BROKEN: at " in out
    assert "nox -s simulate -- --graphs --first-seed 0 --seeds 1\n" in out
