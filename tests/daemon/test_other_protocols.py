"""Clients of another protocol on the daemon's port, and clients of the daemon on another port: each learns what the port is."""

from __future__ import annotations

import pytest

from tests.daemon.support.http import TOKEN, open_http

pytestmark = pytest.mark.daemon

_HANDSHAKE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
)


@pytest.mark.parametrize("path", ["/ws", "/", "/events", "/tasks", "/other?token=x"])
@pytest.mark.parametrize("token", [None, "wrong", TOKEN])
async def test_websocket_handshake_is_refused_with_what_the_port_is(path: str, token: str | None) -> None:
    async with open_http() as http:
        answer = await http.ask(path, *_HANDSHAKE, token=token, host="some.name.example:8765")
    assert answer.status == 501
    assert answer.error.startswith("this is the HTTP port of a galaxy-trio daemon")
    assert answer.headers["server"] == "galaxy-trio-daemon"
