"""The proxy of a connection: its URL, and the environment's choice between it and a direct connection."""

from __future__ import annotations

import base64

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._transport.proxy import Proxy, find_proxy, parse_proxy, proxy_in_environment
from galaxy_trio._transport.url import parse_url
from tests.connection.support.leaks import chain

WSS = parse_url("wss://galaxy.example.com/ws")
WS = parse_url("ws://galaxy.example.com/ws")


def _host_and_port(environment: dict[str, str], url: str = "wss://galaxy.example.com/ws") -> str | None:
    proxy = proxy_in_environment(environment, parse_url(url))
    return None if proxy is None else f"{proxy.host}:{proxy.port}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example.com:3128", ("proxy.example.com", 3128, False)),
        ("http://proxy.example.com:3128/", ("proxy.example.com", 3128, False)),
        (" HTTP://Proxy.Example.com ", ("proxy.example.com", 80, False)),
        ("https://proxy.example.com", ("proxy.example.com", 443, True)),
        ("proxy.example.com:3128", ("proxy.example.com", 3128, False)),
        ("user:password@proxy.example.com:3128", ("proxy.example.com", 3128, False)),
        ("http://[::1]:3128", ("::1", 3128, False)),
        ("http://user:password@[2001:db8::1]", ("2001:db8::1", 80, False)),
        ("http://10.0.0.1:8080", ("10.0.0.1", 8080, False)),
        ("http://b\u00fccher.example", ("xn--bcher-kva.example", 80, False)),
    ],
)
def test_url_of_a_proxy_has_a_host_and_a_port(url: str, expected: tuple[str, int, bool]) -> None:
    proxy = parse_proxy(url)
    assert (proxy.host, proxy.port, proxy.secure) == expected


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:password", b"user:password"),
        ("user", b"user:"),
        (":password", b":password"),
        ("DOMAIN%5Cuser:p%40ss%3A%2F%23%25", b"DOMAIN\\user:p@ss:/#%"),
        ("user:p@ss", b"user:p@ss"),
        ("us\u00e9r:%C3%A9", "us\u00e9r:\u00e9".encode()),
    ],
)
def test_credentials_are_decoded_and_never_shown(userinfo: str, credentials: bytes) -> None:
    proxy = parse_proxy(f"http://{userinfo}@proxy.test:3128")
    assert proxy.authorization == b"Basic " + base64.b64encode(credentials)
    assert proxy.shown == "http://proxy.test:3128"
    assert repr(proxy) == "Proxy(host='proxy.test', port=3128, secure=False, shown='http://proxy.test:3128')"


@pytest.mark.parametrize("scheme", ["socks", "socks4", "socks4a", "socks5", "socks5h", "SOCKS5"])
def test_socks_proxy_is_refused_by_its_scheme(scheme: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(f"{scheme}://user:s3cret@proxy.test:1080", "the proxy in X")
    assert str(caught.value) == (
        f"the proxy in X is a {scheme.lower()} proxy, which is not supported: "
        "use an HTTP proxy, such as http://host:port"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://:3128",
        "ftp://user:s3cret@proxy.test",
        "ws://user:s3cret@proxy.test",
        "s3cret://proxy.test",
        "http://user:s3cret@proxy.test:port",
        "http://user:s3cret@proxy.test:0",
        "http://user:s3cret@proxy.test:65536",
        "http://user:s3c/ret@proxy.test",
        "http://user:s3cret/ret@proxy.test",
        "http://s3cret#ret@proxy.test",
        "http://user:s3cret?ret@proxy.test",
        "http://user:s3cret@proxy.test/path",
        "http://user:s3cret@proxy.test?query",
        "http://user:s3cret@pro xy.test",
        "http://user:s3cret@[::1",
        "http://user:s3cret@[s3cret]",
        "http://user:s3cret@a..b",
        "http://user:s3cret\ud800@proxy.test",
    ],
)
def test_unusable_url_of_a_proxy_is_refused_without_showing_any_of_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(url)
    assert str(caught.value).startswith("the proxy's URL cannot be used: it should look like http://host:port or ")
    assert not [error for error in chain(caught.value) if "s3c" in repr(error) + repr(vars(error))]


@pytest.mark.parametrize(
    ("environment", "for_wss", "for_ws"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": "http://a:1"}, "a:1", None),
        ({"https_proxy": "http://a:1"}, "a:1", None),
        ({"HTTP_PROXY": "http://a:1"}, None, "a:1"),
        ({"http_proxy": "a:1"}, None, "a:1"),
        ({"ALL_PROXY": "http://a:1"}, "a:1", "a:1"),
        ({"all_proxy": "http://a:1"}, "a:1", "a:1"),
        ({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://b:2", "ALL_PROXY": "http://c:3"}, "a:1", "b:2"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "socks5://c:3", "HTTP_PROXY": ""}, "a:1", None),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "b:2", None),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "", "ALL_PROXY": "http://c:3"}, None, "c:3"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, None, None),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "example.com"}, None, None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "example.com", "no_proxy": ""}, "a:1", None),
    ],
)
def test_environment_names_the_proxy_by_the_scheme(
    environment: dict[str, str], for_wss: str | None, for_ws: str | None
) -> None:
    assert _host_and_port(environment) == for_wss
    assert _host_and_port(environment, "ws://galaxy.example.com/ws") == for_ws


def test_error_about_a_proxy_of_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="the proxy in the environment variable all_proxy is a socks5h proxy"):
        proxy_in_environment({"ALL_PROXY": "http://a:1", "all_proxy": "socks5h://user:s3cret@proxy.test"}, WSS)
    with pytest.raises(ConfigError, match="the proxy in the environment variable HTTP_PROXY cannot be used"):
        proxy_in_environment({"HTTP_PROXY": "http://"}, WS)


def test_unusable_proxy_does_not_matter_for_a_server_that_is_reached_directly() -> None:
    environment = {"ALL_PROXY": "socks5://proxy.test", "NO_PROXY": "example.com"}
    assert proxy_in_environment(environment, WSS) is None
    assert proxy_in_environment(environment, parse_url("ws://localhost")) is None


def test_given_proxy_is_used_for_every_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HTTP_PROXY", "http://other.test")
    expected = Proxy("proxy.test", 3128, False, None, "http://proxy.test:3128")
    for url in ("ws://galaxy.example.com", "wss://galaxy.example.com", "ws://localhost"):
        assert find_proxy("http://proxy.test:3128", parse_url(url)) == expected
        assert find_proxy(None, parse_url(url)) is None
        assert find_proxy(True, parse_url(url)) is None
