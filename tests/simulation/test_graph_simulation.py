"""Simulated runs of task graphs keep all promises, and are reproducible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.simulation.digests import digests
from tests.simulation.graphs.mutations import GRAPH_MUTATIONS, pass_no_skip_on
from tests.simulation.graphs.run import simulate_graph
from tests.simulation.simulate import main, report_of

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
        assert any(simulate_graph(seed).broken for seed in (GRAPH_MUTATIONS[mutation], *range(_SEEDS_OF_MUTATION)))


def test_seed_of_a_graph_gives_the_same_run_byte_for_byte_in_every_process() -> None:
    found = digests(simulate_graph, 8, "1")
    assert found == digests(simulate_graph, 8, "2")
    assert len(set(found)) == 8


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
