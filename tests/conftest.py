"""How these tests run: Hypothesis without deadlines, for they tell of the machine, and with other examples each time.

``GALAXY_TRIO_TRANSPORT`` names the package with which all WebSockets are made, whoever makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from transport_under_test import TRANSPORT

from galaxy_trio import transport
from galaxy_trio.transports import find_transport

if TYPE_CHECKING:
    from collections.abc import Generator

# Before any test has imported it by name.
transport.Transport = find_transport(TRANSPORT)  # type: ignore[misc,assignment]  # pyright: ignore[reportAttributeAccessIssue]

settings.register_profile("galaxy_trio", deadline=None, derandomize=False, max_examples=100, print_blob=True)
settings.load_profile("galaxy_trio")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what was logged be sent between the processes in which tests run side by side: lone surrogates cannot."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report
