"""The checks of hosts, origins and tokens, over real sockets."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.support.http import TOKEN, open_http, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


pytestmark = pytest.mark.daemon


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:8765",
        "[::1]",
        "[::1]:8765",
        "192.0.2.7:1",
        "galaxy.example",
        "galaxy.example.:443",
    ],
)
async def test_own_host_names_and_ip_addresses_are_allowed(host: str) -> None:
    async with open_http(hosts=["Galaxy.Example"]) as http:
        assert (await http.ask(host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "galaxy.example.",
    ],
)
async def test_other_host_names_are_refused(host: str) -> None:
    async with open_http(hosts=["other.example"]) as http:
        answer = await http.ask(host=host)
        assert answer.status == 421
        assert "allowed_hosts" in answer.error


@pytest.mark.parametrize(
    "host",
    [
        "localhost:80:90",
        "localhost:x",
        "[::1]x",
        "localhost:",
        "localhost:8\u00b2",
        "[attacker]",
        "[1:2]",
        "localhost@attacker.example",
        "localhost, attacker.example",
        "localhost/",
        "",
    ],
)
async def test_invalid_host_header_is_refused(host: str) -> None:
    async with open_http() as http:
        assert (await http.ask(host=host)).status == 400


async def test_request_must_have_exactly_one_host_header() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Host", "attacker.example"))).status == 400
        assert (await http.ask(host=None)).status == 400
        old = parse(await http.raw(b"GET /open HTTP/1.0\r\n\r\n"))
        assert (old.status, old.error) == (400, "the header Host is missing")


@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "http://attacker.example"),),
        (("Origin", "null"),),
        (("Origin", "http://localhost:1"),),
        (("Origin", "http://localhost"),),
        (("Origin", "http://localhost:8765/"),),
        (("Origin", "http://localhost:8765@attacker.example"),),
        (("Origin", "ftp://localhost:8765"),),
        (("Origin", "file://"),),
        (("Origin", "http://attacker.example"), ("X-Forwarded-Host", "attacker.example")),
        (("Origin", "http://attacker.example"), ("X-Forwarded-Port", "80")),
        (("Sec-Fetch-Site", "cross-site"),),
        (("Sec-Fetch-Site", "same-site"),),
        (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")),
    ],
)
async def test_requests_from_pages_of_other_sites_are_refused(
    headers: Sequence[tuple[str, str]],
) -> None:
    async with open_http(hosts=["galaxy.example"]) as http:
        for method in ("GET", "POST", "DELETE"):
            answer = await http.ask("/echo", *headers, method=method, host="localhost:8765")
            assert answer.status == 403
            assert "requests from pages of other sites are refused" in answer.error


async def test_refusal_of_a_page_says_what_a_proxy_has_to_pass_on() -> None:
    async with open_http() as http:
        answer = await http.ask("/echo", ("Origin", "https://galaxy.example"), host="127.0.0.1:8765", method="POST")
    assert "https://galaxy.example" in answer.error
    assert "pass on the header Host" in answer.error
    assert "allowed_hosts" in answer.error


@pytest.mark.parametrize(
    "headers",
    [
        (("Origin", "http://localhost:8765"),),
        (("Origin", "https://LOCALHOST:8765"),),
        (("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")),
        (("Sec-Fetch-Site", "none"),),
    ],
)
async def test_requests_from_the_daemons_own_page_are_allowed(headers: Sequence[tuple[str, str]]) -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", *headers, method="POST", host="localhost:8765")).status == 200


_NAME = "galaxy.example"


@pytest.mark.parametrize(
    ("host", "origin", "forwarded"),
    [
        (f"{_NAME}:443", f"https://{_NAME}", ()),
        (f"{_NAME}:80", f"http://{_NAME}", ()),
        (_NAME, f"https://{_NAME}:443", ()),
        (f"{_NAME}:8443", f"https://{_NAME}:8443", ()),
        (f"{_NAME.upper()}:443", f"HTTPS://{_NAME}", ()),
        (f"{_NAME}.:443", f"https://{_NAME}", ()),
        (f"{_NAME}:443", f"https://{_NAME}.", ()),
        ("[::1]:80", "http://[::1]", ()),
        ("[0:0:0:0:0:0:0:1]:443", "https://[::1]", ()),
        ("192.0.2.7:443", "https://192.0.2.7", ()),
        # The proxy replaces Host with its own name for the daemon, as nginx does by default.
        ("127.0.0.1:8765", f"https://{_NAME}", ()),
        # As Apache does, which adds another header.
        ("127.0.0.1:8765", f"https://{_NAME}:8443", (("X-Forwarded-Host", f"{_NAME}:8443"),)),
        ("127.0.0.1:8765", f"https://{_NAME}:8443", (("X-Forwarded-Host", f"{_NAME}:8443, inner.example"),)),
        ("127.0.0.1:8765", "https://192.0.2.7:8443", (("X-Forwarded-Host", "192.0.2.7:8443"),)),
        # The proxy passes on the name without its port.
        (_NAME, f"https://{_NAME}:8443", (("X-Forwarded-Port", "8443"),)),
    ],
)
async def test_page_is_the_daemons_own_behind_a_proxy(
    host: str, origin: str, forwarded: Sequence[tuple[str, str]]
) -> None:
    async with open_http(hosts=["Galaxy.Example."]) as http:
        answer = await http.ask("/echo", ("Origin", origin), *forwarded, method="POST", host=host)
        assert answer.status == 200, answer.error


@pytest.mark.parametrize(
    ("host", "origin", "forwarded"),
    [
        (f"{_NAME}:443", f"http://{_NAME}:8443", ()),
        (f"{_NAME}:8765", f"https://{_NAME}:8443", ()),
        ("[::1]:443", "https://[::2]", ()),
        ("127.0.0.1:8765", f"https://{_NAME}:8443", (("X-Forwarded-Host", _NAME),)),
        ("127.0.0.1:8765", f"https://{_NAME}:8443", (("X-Forwarded-Port", "8443x"),)),
        ("127.0.0.1:8765", f"https://{_NAME}:8443", (("X-Forwarded-Port", "9" * 5000),)),
        ("127.0.0.1:8765", "https://attacker.example", (("X-Forwarded-Host", "attacker.example"),)),
        ("127.0.0.1:8765", "https://attacker.example", (("X-Forwarded-Host", f"{_NAME}, attacker.example"),)),
    ],
)
async def test_other_origins_stay_foreign_behind_a_proxy(
    host: str, origin: str, forwarded: Sequence[tuple[str, str]]
) -> None:
    async with open_http(hosts=[_NAME]) as http:
        answer = await http.ask("/echo", ("Origin", origin), *forwarded, method="POST", host=host)
        assert answer.status == 403


async def test_link_from_another_site_may_lead_to_the_page_only() -> None:
    follow = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"))
    async with open_http() as http:
        assert (await http.ask("/", *follow, token=None)).status == 200
        assert (await http.ask("/", *follow, method="POST")).status == 403
        assert (await http.ask("/", ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"))).status == 403


@pytest.mark.parametrize("token", ["an0ther", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "", f" {TOKEN}", "t0k\u00e9n"])
async def test_wrong_token_is_refused_and_shown_nowhere(token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_http() as http:
        answer = await http.ask(token=token)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.body.decode() + caplog.text
        assert not token.strip() or token not in answer.body.decode() + caplog.text


async def test_only_open_paths_need_no_token() -> None:
    async with open_http() as http:
        for path in ("/echo", "/nothing", "/open/", "/open/../echo", "//open", "/%6fpen/x"):
            assert (await http.ask(path, token=None)).status == 401
        assert (await http.ask("/open", token=None)).status == 200


@pytest.mark.parametrize(
    "header",
    [f"Basic {TOKEN}", TOKEN, f"bearer  {TOKEN}", f"Bearer\t{TOKEN}", f"Bearer {TOKEN}, Bearer x"],
)
async def test_other_authorization_schemes_and_forms_are_refused(header: str) -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Authorization", header), token=None)).status == 401


async def test_authorization_scheme_is_case_insensitive() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("authorization", f"bEARER {TOKEN}"), token=None)).status == 200


async def test_request_with_two_tokens_is_refused() -> None:
    async with open_http() as http:
        assert (await http.ask("/echo", ("Authorization", f"Bearer {TOKEN}"))).status == 400


async def test_several_tokens_are_valid_and_can_be_replaced_at_any_time() -> None:
    async with open_http(tokens=["one", "two"]) as http:
        assert [(await http.ask(token=token)).status for token in ("one", "two", "three")] == [200, 200, 401]
        http.tokens[:] = ["three"]
        assert [(await http.ask(token=token)).status for token in ("one", "three")] == [401, 200]
        http.tokens.clear()
        assert (await http.ask(token=None)).status == 200


async def test_all_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with open_http(tokens=["one", "two", "three"]) as http:
        assert (await http.ask(token="one")).status == 200
    assert compared == [b"one", b"two", b"three"]


@pytest.mark.parametrize("ask", [{}, {"token": "wrong"}, {"host": "attacker.example"}, {"path": "/nothing"}])
async def test_every_response_has_the_security_headers(ask: dict[str, Any]) -> None:
    async with open_http() as http:
        headers = (await http.ask(**ask)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


async def test_handler_may_replace_the_content_security_policy() -> None:
    async with open_http() as http:
        assert (await http.ask("/")).headers["content-security-policy"] == "default-src 'self'"
