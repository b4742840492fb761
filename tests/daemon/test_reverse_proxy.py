"""The daemon and the server behind nginx and Caddy, with the configurations of the how-to guide and with the proxies' defaults."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from galaxy_trio import DeviceInfo, open_connection
from galaxy_trio.agent import open_device_connection
from galaxy_trio.daemon.web import event_stream
from galaxy_trio.daemon.web.security import MAX_BODY, MAX_GRAPH_BODY
from galaxy_trio.server import open_server
from tests.daemon.support.daemon import RunningDaemon, open_daemon
from tests.daemon.support.listener import listen_on
from tests.daemon.support.reverse_proxy import NAME, Proxy, documented, open_caddy, open_nginx

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


pytestmark = pytest.mark.daemon

ALLOWED = f'allowed_hosts = ["{NAME}"]'
NGINX_DEFAULTS = "server { listen 80; location / { proxy_pass http://127.0.0.1:8765; } }"
CADDY_COMPRESSING = f"""
{NAME} {{
    encode gzip
    reverse_proxy 127.0.0.1:8765 {{
        header_up Host {{upstream_hostport}}
    }}
}}
"""
BEHIND = ["nginx", "nginx with its defaults", "Caddy", "Caddy that compresses and replaces Host"]


@asynccontextmanager
async def _open(which: str, directory: Path, **settings: Any) -> AsyncGenerator[tuple[RunningDaemon, Proxy]]:
    async with open_daemon(directory, "d1", listen="127.0.0.1:0", settings=ALLOWED, **settings) as daemon:
        ports = {"127.0.0.1:8765": daemon.url.removeprefix("http://")}
        match which:
            case "nginx":
                opening = open_nginx(directory, documented("The daemon", "nginx"), ports)
            case "nginx with its defaults":
                opening = open_nginx(directory, NGINX_DEFAULTS, ports)
            case "Caddy":
                opening = open_caddy(directory, documented("The daemon", "text"), ports)
            case _:
                opening = open_caddy(directory, CADDY_COMPRESSING, ports)
        async with opening as proxy:
            yield daemon, proxy


@pytest.mark.parametrize("which", BEHIND)
async def test_each_event_arrives_behind_a_proxy_before_the_next_one_is_made(which: str, tmp_path: Path) -> None:
    async with _open(which, tmp_path) as (_, proxy), proxy.client() as client:
        async with listen_on(await proxy.connect(), NAME, ("Accept-Encoding", "gzip")) as events:
            for _ in range(3):
                answer = await client.post("/tasks", json={"request": "echo", "device": "d1"})
                assert answer.status_code == 202, answer.text
                await events.until("task", id=answer.json()["id"], state="completed")


@pytest.mark.parametrize("which", BEHIND)
async def test_stream_of_events_begins_before_the_first_event(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No later comment brings the beginning of the response with it.
    monkeypatch.setattr(event_stream, "_KEEPALIVE", math.inf)
    async with _open(which, tmp_path) as (_, proxy):
        async with listen_on(await proxy.connect(), NAME, ("Accept-Encoding", "gzip")):
            pass


@pytest.mark.parametrize("which", BEHIND)
async def test_page_works_behind_a_proxy_and_pages_of_other_sites_do_not(which: str, tmp_path: Path) -> None:
    task = {"request": "x", "device": "d1"}
    async with _open(which, tmp_path) as (_, proxy), proxy.client() as client:
        assert "<html" in (await client.get("/")).text
        own = await client.post("/tasks", json=task, headers={"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"})
        assert own.status_code == 202, own.text
        for other in ("https://attacker.example", "null", f"{proxy.url}:8443"):
            assert (await client.post("/tasks", json=task, headers={"Origin": other})).status_code == 403


@pytest.mark.parametrize("which", BEHIND)
async def test_results_and_lists_are_whole_behind_a_proxy(which: str, tmp_path: Path) -> None:
    async with _open(which, tmp_path) as (daemon, proxy), proxy.client() as client:
        request = f"echo {'x' * 900_000}"
        answer = await client.post("/tasks", json={"request": request, "device": "d1"})
        await daemon.ended_task(answer.json()["id"])
        assert len((await client.get(f"/tasks/{answer.json()['id']}/result")).content) > len(request)
        assert len((await client.get("/tasks")).json()["tasks"]) == 1


@pytest.mark.parametrize("which", ["nginx", "Caddy"])
async def test_graph_that_is_larger_than_other_requests_passes_a_proxy(which: str, tmp_path: Path) -> None:
    graph = {"nodes": [{"id": "a", "request": f"echo {'x' * (MAX_BODY - 5)}", "device": "d1"}]}
    async with _open(which, tmp_path) as (_, proxy), proxy.client() as client:
        answer = await client.post("/graphs", json=graph)
        assert answer.status_code == 202, answer.text
        # The largest body: it is the daemon that says what is wrong with it.
        text = "x" * (MAX_GRAPH_BODY - len('{"nodes": ""}'))
        answer = await client.post("/graphs", json={"nodes": text})
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("which", ["nginx", "Caddy"])
async def test_agent_and_client_reach_a_server_behind_a_proxy(which: str, tmp_path: Path) -> None:
    async with open_server(token="abc", allowed_hosts=[NAME]) as server:
        ports = {"127.0.0.1:5000": server.url.removeprefix("ws://").removesuffix("/ws")}
        if which == "nginx":
            opening = open_nginx(tmp_path, documented("The server", "nginx"), ports)
        else:
            site = documented("The server", "text").partition("\n}\n")[2]
            opening = open_caddy(tmp_path, site, ports)
        async with opening as proxy:
            url = f"wss://{NAME}/ws"
            streams = [await trio.open_unix_socket(proxy.socket) for _ in range(2)]
            info = DeviceInfo("d1", "linux")
            async with (
                open_device_connection(
                    url, "d1", system_info=info, token="abc", stream=streams[0], ssl_context=proxy.tls
                ),
                open_connection(url, "d1", token="abc", stream=streams[1], ssl_context=proxy.tls) as connection,
            ):
                assert (await connection.run_task("x")).unwrap() == {"echo": "x"}
