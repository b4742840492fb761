"""The timeouts and limits that all roles share."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing

from galaxy_trio import ConfigError, ConnectionOptions
from galaxy_trio.testing import open_scripted_peer


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(ConnectionOptions)])
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
    }


async def test_heartbeats_are_sent_every_30_s_by_default(autojump_clock: trio.testing.MockClock) -> None:
    async with open_scripted_peer() as peer:
        for _ in range(3):
            start = trio.current_time()
            assert (await peer.receive()).type == "heartbeat"
            assert trio.current_time() - start == pytest.approx(30)
            peer.confirm()
