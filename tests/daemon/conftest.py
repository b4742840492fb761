"""Fixtures of the daemon's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """A browser for all tests of the page."""
    # Playwright is installed for these tests alone.
    from tests.daemon.support.page_browser import open_browser  # noqa: PLC0415

    with open_browser() as browser:
        yield browser
