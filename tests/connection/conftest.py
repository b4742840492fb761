"""Fixtures of the tests about tokens."""

from __future__ import annotations

import logging

import pytest

from tests.connection.support.leaks import TOKENS


@pytest.fixture(params=TOKENS, ids=["plain", "special"])
def token(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def every_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Capture every log record of every library."""
    caplog.set_level(1)
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(1, logger=name)
