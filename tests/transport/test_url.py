"""URLs and headers are parsed or refused with a clear error, which never shows a token."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio._transport.url import Target, check_headers, parse_url
from galaxy_trio.errors import ConfigError

SECRET = "s3cr3t"


def refusal(url: str, token: str | None = None) -> str:
    """Return the reason why a URL is refused. Neither the error nor its chain may contain the secret."""
    with pytest.raises(ConfigError) as caught:
        parse_url(url, token)
    assert_hides_the_secret(caught.value)
    return str(caught.value)


def assert_hides_the_secret(error: BaseException | None) -> None:
    while error is not None:
        for shown in (str(error), repr(error), repr(error.args), repr(vars(error))):
            assert SECRET not in shown
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("url", "target", "host_header"),
    [
        ("ws://host", Target("host", 80, False, "/ws", "ws://host:80/ws"), "host"),
        ("wss://host", Target("host", 443, True, "/ws", "wss://host:443/ws"), "host"),
        ("ws://host:5000/ws", Target("host", 5000, False, "/ws", "ws://host:5000/ws"), "host:5000"),
        ("ws://host:443/ws", Target("host", 443, False, "/ws", "ws://host:443/ws"), "host:443"),
        ("wss://host:80/ws", Target("host", 80, True, "/ws", "wss://host:80/ws"), "host:80"),
        ("ws://host:/ws", Target("host", 80, False, "/ws", "ws://host:80/ws"), "host"),
        ("ws://host:65535/ws", Target("host", 65535, False, "/ws", "ws://host:65535/ws"), "host:65535"),
        ("ws://host:1/ws", Target("host", 1, False, "/ws", "ws://host:1/ws"), "host:1"),
        ("WS://HOST.Example/Ws", Target("host.example", 80, False, "/Ws", "ws://host.example:80/Ws"), "host.example"),
        ("ws://host/", Target("host", 80, False, "/", "ws://host:80/"), "host"),
        ("ws://host/a/b/", Target("host", 80, False, "/a/b/", "ws://host:80/a/b/"), "host"),
        ("ws://10.0.0.1:81/ws", Target("10.0.0.1", 81, False, "/ws", "ws://10.0.0.1:81/ws"), "10.0.0.1:81"),
        ("ws://[::1]", Target("::1", 80, False, "/ws", "ws://[::1]:80/ws"), "[::1]"),
        ("wss://[2001:DB8::1]:8443/x", Target("2001:db8::1", 8443, True, "/x", "wss://[2001:db8::1]:8443/x"), "[2001:db8::1]:8443"),
        ("ws://ü.example", Target("xn--tda.example", 80, False, "/ws", "ws://xn--tda.example:80/ws"), "xn--tda.example"),
        ("ws://host/ws#", Target("host", 80, False, "/ws", "ws://host:80/ws"), "host"),
    ],
)  # fmt: skip
def test_a_url_is_parsed(url: str, target: Target, host_header: str) -> None:
    assert parse_url(url) == target
    assert parse_url(url).host_header == host_header


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("ws://host?room=1", "/ws?room=1"),
        ("ws://host/ws?", "/ws"),
        ("ws://host/a?room=1&x=%20/?:@!$'()*+,;=~&y", "/a?room=1&x=%20/?:@!$'()*+,;=~&y"),
        ("ws://host/a b/ü/%2F%zz:@!$&'()*+,;=~", "/a%20b/%C3%BC/%2F%zz:@!$&'()*+,;=~"),
        ('ws://host/ws?name=a b"<ü>', "/ws?name=a%20b%22%3C%C3%BC%3E"),
        ("ws://host/ws?tokens=1&a=token", "/ws?tokens=1&a=token"),
    ],
)
def test_path_and_query_are_kept_and_quoted_for_http(url: str, resource: str) -> None:
    assert parse_url(url).resource == resource


@pytest.mark.parametrize(
    ("url", "token", "resource"),
    [
        ("ws://host", "abc", "/ws?token=abc"),
        ("ws://host/a?room=1", "abc", "/a?room=1&token=abc"),
        ("ws://host/a?", "abc", "/a?token=abc"),
        ("ws://host", "a/b c&d=e?f#g%20ü+", "/ws?token=a%2Fb%20c%26d%3De%3Ff%23g%2520%C3%BC%2B"),
        ("ws://host", "", "/ws?token="),
        ("ws://host/ws?token=a%20b", None, "/ws?token=a%20b"),
    ],
)
def test_a_token_is_quoted_into_the_query(url: str, token: str | None, resource: str) -> None:
    assert parse_url(url, token).resource == resource


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ws://host/ws?a=1", SECRET),
        (f"ws://host/ws?token={SECRET}", None),
        (f"ws://host/ws;token={SECRET}", None),
        (f"ws://host/ws%3Ftoken={SECRET}", None),
        (f"ws://host/token={SECRET}/ws", None),
    ],
)
def test_a_target_never_shows_its_token(url: str, token: str | None) -> None:
    target = parse_url(url, token)
    assert SECRET in target.resource
    assert SECRET not in repr(target) + str(target) + target.shown + target.host_header


@pytest.mark.parametrize(
    ("url", "begins"),
    [
        ("http://host/ws", "begins with 'http://'"),
        ("https://host/ws", "begins with 'https://'"),
        ("wsss://host/ws", "begins with 'wsss://'"),
        ("host:5000/ws", "has neither"),
        ("host/ws", "has neither"),
        ("//host/ws", "has neither"),
        ("", "has neither"),
    ],
)
def test_a_scheme_other_than_ws_or_wss_is_refused(url: str, begins: str) -> None:
    advice = "it should look like ws://host:port/ws"
    assert refusal(url, SECRET) == f"a server's URL begins with ws:// or wss://, and this one {begins}: {advice}"
    refusal(f"{url}?token={SECRET}")


@pytest.mark.parametrize("userinfo", ["user@", f"user:{SECRET}@", f"{SECRET}@", f":{SECRET}@", "@"])
def test_a_user_or_a_password_is_refused(userinfo: str) -> None:
    assert refusal(f"ws://{userinfo}host/ws") == "a server's URL takes no user and password: give a token, or a header"


def test_a_fragment_is_refused() -> None:
    problem = "a WebSocket URL has no fragment: leave out '#' and what follows it"
    assert refusal(f"ws://host/ws?token={SECRET}#x") == problem
    assert refusal(f"ws://host/ws?token=#{SECRET}") == problem


@pytest.mark.parametrize("url", ["ws://", "ws:///ws", "ws://:80/ws", "ws:host", "ws:/host/ws", f"ws://?token={SECRET}"])
def test_a_url_without_a_host_is_refused(url: str) -> None:
    assert refusal(url, None) == "the server's URL names no host: it should look like ws://host:port/ws"


@pytest.mark.parametrize("port", ["0", "00", "65536", "99999", "-1", "+80", "8a", "x", "1 2", "\u0668"])
def test_an_invalid_port_is_refused(port: str) -> None:
    problem = "the port in the URL for host 'host' is invalid: use a number from 1 to 65535"
    assert refusal(f"ws://host:{port}/ws?token={SECRET}") == problem


@pytest.mark.parametrize("host", ["a..b", ".host", "a" * 64, "xn--\u00fc", "\u00fc" * 100])
def test_an_invalid_host_is_refused(host: str) -> None:
    assert refusal(f"ws://{host}/ws?token={SECRET}") == f"{host!r} is not a valid host name"


def test_a_long_host_is_shortened() -> None:
    assert refusal(f"ws://{'a' * 10_000}/ws") == f"{'a' * 100!r} is not a valid host name"


@pytest.mark.parametrize("netloc", ["[::1", "::1]", "[host]", "[]", "a\u2100b"])
def test_an_unreadable_url_is_refused(netloc: str) -> None:
    problem = refusal(f"ws://{netloc}/ws?token={SECRET}")
    assert problem.startswith("the server's URL cannot be read: ")
    assert len(problem) > len("the server's URL cannot be read: ")


@pytest.mark.parametrize("query", [f"token={SECRET}", f"a=1&token={SECRET}", "token=", f"%74oken={SECRET}"])
def test_a_token_given_twice_is_refused(query: str) -> None:
    problem = "the token is given twice, in the URL and separately: remove it from the URL"
    assert refusal(f"ws://host/ws?{query}", SECRET) == problem


hosts = st.sampled_from(["host", "10.0.0.1", "[::1]", "ü.example", "", "a..b"]) | st.text(max_size=5)
netlocs = st.builds("".join, st.tuples(hosts, st.sampled_from(["", ":80", ":", ":0", ":00", ":x"])))
urls = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["ws://", "wss://", "WS://", "http://", ""]),
        netlocs,
        st.just("") | st.text(max_size=10).map(lambda path: f"/{path}"),
        st.just("") | st.text(max_size=10).map(lambda query: f"?{query}"),
    ),
)


@given(urls | st.text(), st.none() | st.text(max_size=10).map(lambda text: SECRET + text))
def test_any_url_is_parsed_without_showing_the_token_or_refused(url: str, token: str | None) -> None:
    try:
        target = parse_url(url, token)
    except ConfigError as error:
        refused = error
    else:
        assert SECRET not in repr(target)
        assert (token is not None) == (SECRET in target.resource)
        assert target.resource.startswith("/")
        assert all("!" <= character <= "~" for character in target.resource)
        assert target.host
        assert target.host.isascii()
        assert 0 < target.port < 65536
        assert attrs.evolve(parse_url(target.shown), resource="") == attrs.evolve(target, resource="")
        return
    assert_hides_the_secret(refused)


def test_headers_are_encoded_for_the_handshake() -> None:
    headers = [
        ("X-Api-Key", "abc"),
        ("x-name", " \tJörg "),
        ("x-empty", ""),
        ("x-tab", "a\tb"),
        ("x-utf-8", "\u00e0".encode().decode("latin-1")),
        ("!#$%&'*+.^_`|~09Az-", "ÿ"),
    ]
    assert check_headers(headers) == [
        (b"X-Api-Key", b"abc"),
        (b"x-name", b"J\xf6rg"),
        (b"x-empty", b""),
        (b"x-tab", b"a\tb"),
        # Its last byte is a space in Latin-1.
        (b"x-utf-8", b"\xc3\xa0"),
        (b"!#$%&'*+.^_`|~09Az-", b"\xff"),
    ]
    assert check_headers(iter(headers[:1])) == [(b"X-Api-Key", b"abc")]
    assert check_headers(()) == []


def header_refusal(name: str, value: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_headers([("x-good", SECRET), (name, value)])
    assert_hides_the_secret(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", ":a", "a\r\nb", "a\n", "ä", "a(b)", '"a"', "a,b", "a\x00"])
def test_an_invalid_header_name_is_refused(name: str) -> None:
    problem = "header 2 has a name that HTTP does not allow: give pairs of name and value"
    assert header_refusal(name, SECRET) == problem


def test_a_header_line_given_as_a_name_is_not_shown() -> None:
    assert header_refusal(f"Authorization: Bearer {SECRET}", "")


@pytest.mark.parametrize("end", ["\r\nx-more: 1", "\n", "\r", "\x00", "\x1f", "\x7f", "\u0100", "😀", "\ud800"])
def test_an_invalid_header_value_is_refused_and_not_shown(end: str) -> None:
    problem = "the value of the header 'x-key' has a character that HTTP does not allow, such as a line break"
    assert header_refusal("x-key", SECRET + end) == problem


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "sec-websocket-version",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol",
        "SEC-WEBSOCKET-ACCEPT",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_the_handshakes_own_headers_are_refused(name: str) -> None:
    assert header_refusal(name, SECRET) == f"the header {name!r} belongs to the handshake and cannot be given"


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ws://host/ws", f"{SECRET}\ud800"),
        (f"ws://host/{SECRET}\ud800", None),
        (f"ws://host/ws?token={SECRET}\ud800", None),
        (f"ws://user:{SECRET}@host\u2100/ws", None),
        (f"ws://user:[{SECRET}]y@host/ws", None),
        (f"ws://device:{SECRET}/ws", None),
    ],
)
def test_text_that_cannot_be_encoded_is_refused_and_not_shown(url: str, token: str | None) -> None:
    assert refusal(url, token)


@pytest.mark.parametrize("netloc", ["[::1]9000", "[::1]]x", "[::1", "a b", "a\x00b", "a%00b"])
def test_text_around_a_host_is_refused(netloc: str) -> None:
    assert "host" in refusal(f"ws://{netloc}/ws")


def test_header_that_is_given_twice_is_refused_without_its_values() -> None:
    with pytest.raises(ConfigError, match=r"^the header 'x-note' is given twice: leave out one$"):
        check_headers([("X-Note", SECRET), ("x-note", SECRET)])
