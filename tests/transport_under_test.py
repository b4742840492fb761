"""The package with which all WebSockets of the tests are made: ``GALAXY_TRIO_TRANSPORT`` names it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, cast

import pytest

if TYPE_CHECKING:
    from galaxy_trio.transports import TransportName

TRANSPORT: Final = cast("TransportName", os.environ.get("GALAXY_TRIO_TRANSPORT", "trio-websocket"))

only_trio_websocket = pytest.mark.skipif(
    TRANSPORT != "trio-websocket", reason="it is about what trio-websocket does, or leaves to others"
)
