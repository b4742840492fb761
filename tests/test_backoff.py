"""When a lost or failed connection is tried again: waits, their limits, and what ends the trying."""

from __future__ import annotations

import math
import ssl
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    HandshakeRejected,
    MessageTooLarge,
    RegistrationRejected,
)
from galaxy_trio.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable


class Highest(Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


REFUSED = ConnectFailed("cannot connect: connection refused")
LOST = ConnectionLost("lost")
REGISTERED = RegistrationRejected(
    "refused", words="client_id 'd' is already registered; duplicate registrations are not allowed"
)


def test_waits_double_from_1_s_to_60_s() -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(REFUSED) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not backoff.needs_attention


def test_waits_have_full_jitter() -> None:
    waits = [Backoff(first=60, random=Random(seed)).failed(REFUSED) for seed in range(200)]
    assert min(waits) < 3
    assert max(waits) > 57
    assert len(set(waits)) == 200


def test_two_devices_do_not_wait_alike() -> None:
    assert Backoff(first=60).failed(REFUSED) != Backoff(first=60).failed(REFUSED)


def test_the_first_wait_and_the_longest_can_be_given() -> None:
    backoff = Backoff(first=5, maximum=15, random=Highest())
    assert [backoff.failed(REFUSED) for _ in range(4)] == [5, 10, 15, 15]


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        ConnectTimeout("no connection within 60 s"),
        HandshakeRejected("not found", status_code=404),
        HandshakeRejected("too many", status_code=429),
        HandshakeRejected("out of order", status_code=500),
        HandshakeRejected("overloaded", status_code=503),
        RegistrationRejected("refused", words="Target device 'device_001' is not connected"),
    ],
    ids=str,
)
def test_what_may_mend_itself_is_tried_again_by_doubling(error: Exception) -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(error) for _ in range(3)] == [1, 2, 4]


@pytest.mark.parametrize("status_code", [401, 403])
def test_a_token_that_is_not_taken_is_tried_every_300_s_and_needs_attention(status_code: int) -> None:
    backoff = Backoff(random=Highest())
    for _ in range(3):
        assert backoff.failed(HandshakeRejected("is the token right?", status_code=status_code)) == 300
        assert backoff.needs_attention
    # It says nothing of how well the server can be reached.
    assert backoff.failed(REFUSED) == 1
    assert not backoff.needs_attention


def test_a_name_that_is_still_registered_is_tried_every_5_s_and_needs_attention_each_60_s_of_it() -> None:
    backoff = Backoff(random=Highest())
    attention: list[float] = []
    waited = 0.0
    for _ in range(30):
        wait = backoff.failed(REGISTERED)
        assert wait == 5
        if backoff.needs_attention:
            attention.append(waited)
        waited += wait
    assert attention == [60, 120]
    assert backoff.failed(REFUSED) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_another_ending_begins_the_60_s_of_a_registered_name_anew(lost: bool) -> None:
    backoff = Backoff()
    for _ in range(12):
        backoff.failed(REGISTERED)
    if lost:
        backoff.lost(1, LOST)
    else:
        backoff.failed(REFUSED)
    for _ in range(12):
        backoff.failed(REGISTERED)
        assert not backoff.needs_attention
    backoff.failed(REGISTERED)
    assert backoff.needs_attention


def test_a_certificate_that_is_not_accepted_ends_it_as_the_same_error() -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = OSError("wrapped")
    error.__cause__.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    with pytest.raises(ConnectFailed) as caught:
        Backoff().failed(error)
    assert caught.value is error


def test_another_tls_failure_is_tried_again() -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = ssl.SSLError("handshake failure")
    assert Backoff(random=Highest()).failed(error) == 1


@pytest.mark.parametrize(
    "error", [ConfigError("a bad URL"), MessageTooLarge("too large"), ValueError("a bug")], ids=str
)
def test_what_is_no_failed_connection_ends_it_as_the_same_error(error: Exception) -> None:
    backoff = Backoff()
    with pytest.raises(type(error)) as caught:
        backoff.failed(error)
    assert caught.value is error
    assert backoff.failures == 0


def test_a_connection_that_lived_60_s_begins_anew() -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(REFUSED) for _ in range(4)] == [1, 2, 4, 8]
    assert backoff.lost(59.9, LOST) == 16
    assert backoff.lost(60, LOST) == 1
    assert backoff.failures == 1


def test_when_the_retries_are_used_up_the_last_error_is_raised() -> None:
    backoff = Backoff(max_retries=2)
    backoff.failed(REFUSED)
    backoff.failed(REGISTERED)
    with pytest.raises(ConnectionLost) as caught:
        backoff.lost(1, LOST)
    assert caught.value is LOST


def test_without_retries_the_first_failure_is_the_last() -> None:
    with pytest.raises(ConnectFailed):
        Backoff(max_retries=0).failed(REFUSED)


def test_a_steady_connection_gives_the_retries_back() -> None:
    backoff = Backoff(max_retries=1)
    for _ in range(5):
        backoff.lost(60, LOST)


@pytest.mark.parametrize(
    ("first", "maximum"), [(0, 60), (-1, 60), (math.nan, 60), (61, 60), (1, math.nan), (1, math.inf)]
)
def test_waits_that_cannot_be_right_are_a_config_error(first: float, maximum: float) -> None:
    with pytest.raises(ConfigError, match="waits must be above 0 s"):
        Backoff(first=first, maximum=maximum)


def test_a_negative_number_of_retries_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="max_retries"):
        Backoff(max_retries=-1)


class Endings(RuleBasedStateMachine):
    """Any sequence of endings: each wait is within the bounds of its kind, and the count is that of a row of failures."""

    def __init__(self) -> None:
        super().__init__()
        self.backoff = Backoff(first=2, maximum=50, max_retries=20, random=Random(0))
        self.ceiling = 2.0
        self.failures = 0

    def _doubling(self, end: Callable[[], float], error: Exception) -> None:
        self.failures += 1
        if self._gives_up(end, error):
            return
        assert 0 <= end() <= self.ceiling
        self.ceiling = min(self.ceiling * 2, 50)

    def _gives_up(self, end: Callable[[], float], error: Exception) -> bool:
        if self.failures <= 20:
            return False
        with pytest.raises(type(error)) as caught:
            end()
        assert caught.value is error
        return True

    @rule(status_code=st.sampled_from([400, 404, 429, 500, 502, 503, 504]))
    def rejected(self, status_code: int) -> None:
        error = HandshakeRejected("rejected", status_code=status_code)
        self._doubling(lambda: self.backoff.failed(error), error)

    @rule()
    def refused(self) -> None:
        self._doubling(lambda: self.backoff.failed(REFUSED), REFUSED)

    @rule(lived=st.floats(min_value=0, max_value=1e6))
    def lost(self, lived: float) -> None:
        if lived >= 60:
            self.ceiling, self.failures = 2, 0
        self._doubling(lambda: self.backoff.lost(lived, LOST), LOST)

    @rule()
    def registered(self) -> None:
        self.failures += 1
        if not self._gives_up(lambda: self.backoff.failed(REGISTERED), REGISTERED):
            assert self.backoff.failed(REGISTERED) == 5

    @rule(status_code=st.sampled_from([401, 403]))
    def not_allowed(self, status_code: int) -> None:
        error = HandshakeRejected("is the token right?", status_code=status_code)
        self.failures += 1
        if not self._gives_up(lambda: self.backoff.failed(error), error):
            assert self.backoff.failed(error) == 300

    @invariant()
    def the_count_is_right(self) -> None:
        assert self.backoff.failures == self.failures


TestEndings = Endings.TestCase
