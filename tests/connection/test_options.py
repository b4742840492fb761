"""The timeouts and limits that all roles share."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionOptions
from galaxy_trio.testing import open_scripted_peer


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(ConnectionOptions) if field.name != "proxy"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_option_that_is_not_positive_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be above 0, and is {value!r}"):
        ConnectionOptions(**{name: value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_defaults_are_those_of_the_documentation() -> None:
    assert attrs.asdict(ConnectionOptions()) == {
        "connect_timeout": 60,
        "register_timeout": 30,
        "heartbeat_interval": None,
        "liveness_timeout": 180,
        "ping_interval": None,
        "max_message_size": 100 * 2**20,
        "max_values": 500_000,
        "memory_budget": 2**30,
        "proxy": None,
    }


def test_options_with_a_proxy_show_it_without_credentials() -> None:
    shown = repr(ConnectionOptions(proxy="http://user:s3cret@proxy.test"))
    assert shown.endswith("proxy='http://proxy.test:80')")
    assert "s3cret" not in shown
    assert repr(ConnectionOptions(proxy=True)).endswith("proxy=True)")


def test_unusable_proxy_is_refused_immediately() -> None:
    with pytest.raises(ConfigError, match="the proxy's URL is a socks5 proxy, which is not supported"):
        ConnectionOptions(proxy="socks5://user:s3cret@proxy.test")
    with pytest.raises(ConfigError, match="proxy must be a URL, True for the proxy of the environment, or None"):
        ConnectionOptions(proxy=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_heartbeats_are_sent_every_30_s_by_default(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer() as peer:
        for _ in range(3):
            start = trio.current_time()
            assert (await peer.receive()).type == "heartbeat"
            assert trio.current_time() - start == pytest.approx(30)
            peer.confirm()
