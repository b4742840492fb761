"""How Hypothesis runs in these tests: no deadlines, for they tell of the machine; other examples each time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("galaxy_trio", deadline=None, derandomize=False, max_examples=100, print_blob=True)
settings.load_profile("galaxy_trio")
