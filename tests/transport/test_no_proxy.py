"""``NO_PROXY`` lists the hosts that are reached directly."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from galaxy_trio._transport.proxy import is_direct, proxy_in_environment
from galaxy_trio._transport.url import parse_url


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "example.com", False),
        (" , ,, ", "example.com", False),
        ("*", "example.com", True),
        ("other.org, *", "10.0.0.1", True),
        ("example.com", "example.com", True),
        ("EXAMPLE.com", "example.COM", True),
        ("example.com.", "example.com", True),
        ("example.com", "example.com.", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.evil.org", False),
        ("example.com", "com", False),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", True),
        (".example.com", "notexample.com", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "notexample.com", False),
        ("other.org,example.com", "example.com", True),
        ("other.org example.com", "example.com", True),
        ("other.org\texample.com\n", "example.com", True),
        ("b\u00fccher.example", "xn--bcher-kva.example", True),
        (".", "example.com", False),
        ("com", "example.com", True),
        ("exa*.com", "example.com", False),
        ("localhost", "example.com", False),
        (f"{'a' * 64}.com", "example.com", False),
    ],
)
def test_domain_covers_its_subdomains(no_proxy: str, host: str, direct: bool) -> None:
    assert is_direct(host, 443, no_proxy) is direct


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("2.3", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/33", "10.0.0.0", False),
        ("10.0.0.0/8", "10.example.com", False),
        ("10.*", "10.1.2.3", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("[2001:db8::]/32", "2001:db8::1", False),
        ("2001:db8::/32", "10.1.2.3", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
    ],
)
def test_address_is_matched_as_an_address(no_proxy: str, host: str, direct: bool) -> None:
    assert is_direct(host, 443, no_proxy) is direct


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("example.com:443", "example.com", 443, True),
        ("example.com:443", "a.example.com", 443, True),
        ("example.com:443", "example.com", 5000, False),
        ("example.com:443,example.com:5000", "example.com", 5000, True),
        ("*:5000", "example.com", 5000, True),
        ("*:5000", "example.com", 443, False),
        ("10.1.2.3:5000", "10.1.2.3", 5000, True),
        ("10.1.2.3:5000", "10.1.2.3", 443, False),
        ("10.0.0.0/8:5000", "10.1.2.3", 5000, True),
        ("[2001:db8::1]:5000", "2001:db8::1", 5000, True),
        ("[2001:db8::1]:5000", "2001:db8::1", 443, False),
        ("2001:db8::1:5000", "2001:db8::1", 5000, False),
        ("example.com:", "example.com", 443, False),
        ("example.com:http", "example.com", 80, False),
    ],
)
def test_port_limits_an_entry(no_proxy: str, host: str, port: int, direct: bool) -> None:
    assert is_direct(host, port, no_proxy) is direct


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"]
)
def test_loopback_is_always_reached_directly(host: str) -> None:
    assert is_direct(host, 5000, "")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:5000", "wss://[::1]:5000", "ws://localhost", "wss://LocalHost:1"])
def test_no_proxy_of_the_environment_is_asked_for_loopback(url: str) -> None:
    assert proxy_in_environment({"ALL_PROXY": "http://proxy.test"}, parse_url(url)) is None


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True).filter(lambda label: "--" not in label)
names = (
    st.lists(labels, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: name != "localhost" and not name.replace(".", "").isdigit())
)
ports = st.integers(1, 65535)
addresses = st.ip_addresses().filter(
    lambda address: not address.is_loopback and not (address.version == 6 and address.ipv4_mapped)
)
separators = st.sampled_from([",", " ", ", ", ",,", "\t"])
dots = st.sampled_from(["", ".", "*."])


@given(names, dots, ports, st.booleans(), st.lists(labels, max_size=2))
def test_any_name_matches_its_own_entry_and_that_of_each_parent(
    name: str, dot: str, port: int, with_port: bool, below: list[str]
) -> None:
    entry = f"{dot}{name}:{port}" if with_port else f"{dot}{name}"
    assert is_direct(".".join([*below, name]), port, entry)
    assert not is_direct(f"x{name}", port, entry)
    assert not is_direct(f"{name}.not-one-of-the-labels", port, entry)
    assert is_direct(name, port % 65535 + 1, entry) is not with_port


@given(addresses, ports, st.data())
def test_any_address_matches_itself_and_each_range_around_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, address.max_prefixlen))
    around = ipaddress.ip_network(f"{address}/{length}", strict=False)
    other = data.draw(st.ip_addresses(v=address.version).filter(lambda drawn: not drawn.is_loopback))
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    assert is_direct(str(address), port, str(address))
    assert is_direct(str(address), port, str(around))
    assert is_direct(str(address), port, f"{bracketed}:{port}")
    assert not is_direct(str(address), port % 65535 + 1, f"{bracketed}:{port}")
    if not (other.version == 6 and other.ipv4_mapped):
        assert is_direct(str(other), port, str(around)) is (other in around)


@given(st.lists(names, min_size=1, max_size=5), separators, names, ports)
def test_any_list_matches_what_one_of_its_entries_matches(
    entries: list[str], separator: str, host: str, port: int
) -> None:
    alone = [is_direct(host, port, entry) for entry in entries]
    assert is_direct(host, port, separator.join(entries)) is any(alone)


@given(st.text(), st.one_of(names, addresses.map(str)), ports)
@example("[", "10.0.0.1", 1)
@example("\u0130:1", "a.b", 1)
@example("..", "a", 1)
@example("a" * 70, "a", 1)
def test_any_text_is_a_list(no_proxy: str, host: str, port: int) -> None:
    assert is_direct(host, port, no_proxy) in (True, False)
