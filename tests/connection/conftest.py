"""Fixtures of the tests about tokens and about TLS."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.connection.support.leaks import TOKENS
from tests.connection.support.sockets import open_sockets

if TYPE_CHECKING:
    from collections.abc import Generator


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


@pytest.fixture
def no_descriptor_is_left_open() -> Generator[None]:
    """Check that no end leaves a socket open."""
    before = open_sockets()
    yield
    assert open_sockets() <= before


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that signs the certificates."""
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the authority."""
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    return context
