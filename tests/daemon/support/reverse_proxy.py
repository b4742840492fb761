"""Real reverse proxies with the configurations of the how-to guide, at Unix sockets."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import httpx2
import pytest
import trio
import trustme

from tests.support.paths import DOCS
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

NAME: Final = "galaxy.example.org"
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin"
_NGINX: Final = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{server}
}}
"""
_CADDY: Final = "{{\n    admin off\n    auto_https off\n}}\n{site}"


@attrs.frozen
class Proxy:
    """A running proxy. Made by `open_nginx` and `open_caddy`.

    Attributes:
        url: Its public address.
        socket: The Unix socket at which it listens.
        tls: For clients that trust its certificate; None if it uses no TLS.
    """

    url: str
    socket: Path
    tls: ssl.SSLContext | None

    def client(self) -> httpx2.AsyncClient:
        """An HTTP client that reaches the public address through the socket."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self.socket), verify=self.tls or True)
        return httpx2.AsyncClient(transport=transport, base_url=self.url, timeout=2 * SECONDS)

    async def connect(self) -> trio.abc.Stream:
        """Open a connection to the public address."""
        stream = await trio.open_unix_socket(self.socket)
        return stream if self.tls is None else trio.SSLStream(stream, self.tls, server_hostname=NAME)


def documented(section: str, language: str, *, page: str = "reverse-proxy") -> str:
    """The configuration in a how-to guide, by the section in which it stands and its language."""
    guide = (DOCS / "howto" / f"{page}.md").read_text("utf-8")
    found = re.search(rf"```{language}\n(.*?)```", guide.partition(f"\n## {section}\n")[2], re.DOTALL)
    assert found is not None
    return found[1]


@asynccontextmanager
async def open_nginx(directory: Path, server: str, ports: dict[str, str]) -> AsyncGenerator[Proxy]:
    """Run nginx with a ``server`` block inside the block. The test is skipped where nginx is not installed.

    Args:
        directory: For its files.
        server: The block.
        ports: The addresses that the configuration names, and those that the test uses instead.
    """
    uses_tls = "ssl_certificate" in server
    tls = _certificate(directory) if uses_tls else None
    path = directory / "n"
    server = _replaced(
        server, {**ports, "listen 443 ssl": f"listen unix:{path} ssl", "listen 80": f"listen unix:{path}"}
    )
    server = server.replace("/etc/ssl/galaxy", str(directory / "galaxy"))
    (directory / "nginx.conf").write_text(_NGINX.format(directory=directory, server=server))
    options = ("-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "log"))
    async with _running("nginx", *options, path=path, log=directory / "log"):
        yield Proxy(f"{'https' if uses_tls else 'http'}://{NAME}", path, tls)


@asynccontextmanager
async def open_caddy(directory: Path, site: str, ports: dict[str, str]) -> AsyncGenerator[Proxy]:
    """Like `open_nginx`, for Caddy and a site of its configuration."""
    tls = _certificate(directory)
    path = directory / "c"
    options = f"bind unix/{path}\n    tls {directory}/galaxy.pem {directory}/galaxy.key"
    site = _replaced(site, {**ports, f"{NAME} {{": f"{NAME} {{\n    {options}"})
    (directory / "Caddyfile").write_text(_CADDY.format(site=site))
    arguments = ("run", "--adapter", "caddyfile", "--config", str(directory / "Caddyfile"))
    async with _running("caddy", *arguments, path=path, log=directory / "log"):
        yield Proxy(f"https://{NAME}", path, tls)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def _certificate(directory: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    issued.private_key_pem.write_to_path(str(directory / "galaxy.key"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(directory / "galaxy.pem"), append=True)
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    return context


def _listens(path: Path) -> bool:
    # The file is there before the program listens.
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@asynccontextmanager
async def _running(program: str, *arguments: str, path: Path, log: Path) -> AsyncGenerator[None]:
    found = shutil.which(program, path=_PATH)
    if found is None:
        pytest.skip(f"{program} is not installed")
    home = {**os.environ, "HOME": str(log.parent)}
    with log.with_suffix(".out").open("wb") as output:
        process = await trio.lowlevel.open_process([found, *arguments], stdout=output, stderr=output, env=home)
    try:
        await until(lambda: _listens(path) or process.poll() is not None)
        assert process.poll() is None, await trio.Path(log.with_suffix(".out")).read_text()
        yield
    finally:
        process.terminate()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SECONDS):
            await process.wait()
