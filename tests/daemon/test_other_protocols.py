"""Clients of another protocol on the daemon's port, and clients of the daemon on another port: each learns what the port is."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from galaxy_trio import HandshakeRejected, open_connection
from galaxy_trio.server import open_server
from tests.cli.support.command_line import call_process, is_one_sentence
from tests.daemon.support.daemon import open_daemon
from tests.daemon.support.http import TOKEN, open_http

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize("path", ["/ws", "/other", "/"])
async def test_aip_client_on_the_daemons_port_learns_what_the_port_is(path: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("daemon-token")
    async with open_daemon(tmp_path, "d1", listen="127.0.0.1:0", settings='token_file = "tokens"') as daemon:
        with pytest.raises(HandshakeRejected, match="this is the HTTP port of a galaxy-trio daemon") as caught:
            async with open_connection(f"{daemon.url.replace('http', 'ws')}{path}", "d1", token="abc"):
                pass
    assert caught.value.status_code == 501
    assert "token" not in str(caught.value)


async def test_daemons_client_on_a_server_of_websockets_learns_what_the_port_is() -> None:
    async with open_server() as server:
        port = server.url.removeprefix("ws").removesuffix("/ws")
        outcome = await call_process("task", "list", "--url", f"http{port}")
        assert (outcome.status, is_one_sentence(outcome)) == (5, True)
        assert "it serves WebSockets, as an AIP server does; the daemon has a port of its own" in outcome.err
        outcome = await call_process("task", "list", "--url", f"https{port}")
        assert (outcome.status, is_one_sentence(outcome)) == (3, True)
        assert "it does not use TLS, so its address begins with http://" in outcome.err


async def test_daemons_client_without_tls_on_a_port_with_tls_learns_that(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    async with open_server(ssl_context=context) as server:
        port = server.url.removeprefix("wss").removesuffix("/ws")
        outcome = await call_process("task", "list", "--url", f"http{port}")
        assert (outcome.status, is_one_sentence(outcome)) == (3, True)
        assert "if it uses TLS, its address begins with https://" in outcome.err
        outcome = await call_process("task", "list", "--url", f"https{port}")
        assert "its certificate is not accepted: " in outcome.err
