"""Breakages of the package, one at a time: the simulation finds each of them within 50 seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import simulate

if TYPE_CHECKING:
    from tests.simulation.patching import Mutation

pytestmark = pytest.mark.simulation

_SEEDS: Final = 50


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_simulation_finds_the_mutation(mutation: Mutation) -> None:
    with mutation():
        assert any(simulate(seed).broken for seed in (MUTATIONS[mutation], *range(_SEEDS)))
