"""How these tests run: Hypothesis without limits of time, which would depend on the machine, and with new examples each time.

Only where `CI` is set, a run has the examples of the run before.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.daemon.support.postgresql import PostgresqlServer

settings.register_profile(
    "galaxy_trio",
    deadline=None,
    # What must pass before a change lands fails by that change. Other examples come with each run elsewhere.
    derandomize="CI" in os.environ,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For the time between two commits (`nox -s fast`).
settings.register_profile("short", settings.get_profile("galaxy_trio"), max_examples=20)
settings.load_profile("galaxy_trio")

# Warnings are errors in the processes that tests start, too.
os.environ["PYTHONWARNINGS"] = "error"


def pytest_collection_finish() -> None:
    """Exempt what collecting has made, some million objects that stay, from garbage collection: it takes a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what was logged be sent between the processes in which tests run side by side: lone surrogates cannot."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def postgresql() -> Generator[PostgresqlServer]:
    """A PostgreSQL server for all tests of a process. Without PostgreSQL, its tests are skipped."""
    from tests.daemon.support.postgresql import open_postgresql  # noqa: PLC0415  # most tests need none of it

    with open_postgresql() as server:
        yield server
