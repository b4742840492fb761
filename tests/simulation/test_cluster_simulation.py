"""Simulated clusters of daemons keep all promises, are reproducible, and show each breakage of a rule."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.simulation.cluster.graph_mutations import CLUSTER_GRAPH_MUTATIONS
from tests.simulation.cluster.mutations import CLUSTER_MUTATIONS, queue_lost_tasks_again
from tests.simulation.cluster.run import simulate_cluster
from tests.simulation.digests import digests
from tests.simulation.simulate import main, report_of

if TYPE_CHECKING:
    from tests.simulation.patching import Mutation

pytestmark = [pytest.mark.daemon, pytest.mark.simulation]

# The seeds are divided into parts, which may run concurrently.
SEEDS: Final = 16
_PARTS: Final = 4
# Even seeds have many tasks, odd ones have graphs.
_SEEDS_OF_MUTATION: Final = 50


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_promise_of_clusters_is_kept(part: int) -> None:
    for seed in range(part, SEEDS, _PARTS):
        run = simulate_cluster(seed)
        assert not run.broken, report_of(run)


@pytest.mark.parametrize("mutation", CLUSTER_MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_simulation_of_clusters_finds_the_mutation(mutation: Mutation) -> None:
    with mutation():
        seeds = CLUSTER_MUTATIONS[mutation], *range(0, _SEEDS_OF_MUTATION, 2)
        assert any(simulate_cluster(seed).broken for seed in seeds)


@pytest.mark.parametrize("mutation", CLUSTER_GRAPH_MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_simulation_of_clusters_finds_the_mutation_of_graphs(mutation: Mutation) -> None:
    with mutation():
        seeds = CLUSTER_GRAPH_MUTATIONS[mutation], *range(1, _SEEDS_OF_MUTATION, 2)
        assert any(simulate_cluster(seed).broken for seed in seeds)


def test_seed_of_a_cluster_gives_the_same_run_byte_for_byte_in_every_process() -> None:
    found = digests(simulate_cluster, 4, "1")
    assert found == digests(simulate_cluster, 4, "2")
    assert len(set(found)) == 4


def test_broken_promise_of_a_cluster_is_reported_with_its_plan_and_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with queue_lost_tasks_again():
        # One job runs in this process, which has the mutation.
        assert main(["--cluster", "--first-seed", "6", "--seeds", "1", "--jobs", "1", "--journal"]) == 1
    out = capsys.readouterr().out
    assert "world disturbs kill: daemon-" in out
    assert "cluster 6: " in out
    assert re.search(r"^BROKEN: \d-\d+ began \d times$", out, re.MULTILINE)
    assert "nox -s simulate -- --cluster --first-seed 6 --seeds 1\n" in out
