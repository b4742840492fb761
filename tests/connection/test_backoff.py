"""The delays before reconnecting, their limits, and the errors that are not retried."""

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
from galaxy_trio._connection.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable


class Highest(Random):
    """A random source that always draws the maximum."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


REFUSED = ConnectFailed("cannot connect: connection refused")
LOST = ConnectionLost("lost")
REGISTERED = RegistrationRejected(
    "refused", words="client_id 'd' is already registered; duplicate registrations are not allowed"
)
ABSENT = RegistrationRejected("refused", words="Target device 'device_001' is not connected")


def waits(backoff: Backoff, error: Exception, count: int, *, now: float = 0.0) -> list[float]:
    """Return the delays after consecutive failures, each attempt failing immediately after its delay."""
    drawn: list[float] = []
    for _ in range(count):
        drawn.append(backoff.failed(error, now=now + sum(drawn)))
    return drawn


def test_delays_double_to_4_s_in_the_first_30_s_of_an_outage_and_then_to_60_s() -> None:
    backoff = Backoff(random=Highest())
    assert waits(backoff, REFUSED, 14) == [1, 2, 4, 4, 4, 4, 4, 4, 4, 8, 16, 32, 60, 60]
    assert not backoff.needs_attention


def test_time_that_a_busy_server_asks_for_is_added_up_to_300_s() -> None:
    for asked, added in ((0.0, 0), (120.0, 120), (1e9, 300)):
        busy = HandshakeRejected("busy", status_code=503, retry_after=asked)
        assert waits(Backoff(random=Highest()), busy, 2) == [1 + added, 2 + added]


def test_the_first_30_s_of_an_outage_count_from_the_loss_of_the_connection() -> None:
    backoff = Backoff(random=Highest())
    assert backoff.lost(100, LOST, now=1000) == 1
    assert [backoff.failed(REFUSED, now=now) for now in (1001, 1010, 1029.9, 1030, 1040)] == [2, 4, 4, 8, 16]


def test_a_connection_younger_than_60_s_does_not_restart_the_first_30_s() -> None:
    backoff = Backoff(random=Highest())
    assert waits(backoff, REFUSED, 3) == [1, 2, 4]
    assert [backoff.lost(20, LOST, now=27), backoff.lost(20, LOST, now=51)] == [4, 8]


def test_delays_have_full_jitter() -> None:
    drawn = [Backoff(first=60, random=Random(seed)).failed(REFUSED, now=0) for seed in range(200)]
    assert min(drawn) < 3
    assert max(drawn) > 57
    assert len(set(drawn)) == 200


def test_two_devices_have_different_delays() -> None:
    assert Backoff(first=60).failed(REFUSED, now=0) != Backoff(first=60).failed(REFUSED, now=0)


@pytest.mark.parametrize(
    ("first", "maximum", "expected"),
    [(5, 15, [5, 5, 5, 5, 5, 5, 10, 15, 15]), (0.5, 3, [0.5, 1, 2, 3, 3]), (40, 60, [40, 60, 60])],
)
def test_the_first_and_the_maximum_delay_are_configurable(first: float, maximum: float, expected: list[float]) -> None:
    assert waits(Backoff(first=first, maximum=maximum, random=Highest()), REFUSED, len(expected)) == expected


def test_an_absent_device_is_retried_within_1_s_and_later_within_a_tenth_of_its_absence() -> None:
    backoff = Backoff(random=Highest())
    assert waits(backoff, ABSENT, 11) == [1] * 11
    assert [backoff.failed(ABSENT, now=now) for now in (20, 300, 600, 6000)] == [2, 30, 60, 60]


def test_delays_for_an_absent_device_have_full_jitter() -> None:
    drawn = [Backoff(random=Random(seed)).failed(ABSENT, now=0) for seed in range(200)]
    assert min(drawn) < 0.05
    assert max(drawn) > 0.95


def test_an_absent_device_neither_advances_nor_resets_the_doubling() -> None:
    backoff = Backoff(random=Highest())
    errors = [REFUSED, ABSENT, ABSENT, REFUSED, ABSENT, REFUSED]
    assert [backoff.failed(error, now=0) for error in errors] == [1, 1, 1, 2, 1, 4]


@pytest.mark.parametrize("lost", [False, True])
def test_another_failure_ends_the_absence_of_a_device(lost: bool) -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(ABSENT, now=now) for now in (0, 300)] == [1, 30]
    if lost:
        backoff.lost(1, LOST, now=301)
    else:
        backoff.failed(REFUSED, now=301)
    assert backoff.failed(ABSENT, now=302) == 1


def test_the_ceiling_for_an_absent_device_is_between_first_and_maximum() -> None:
    backoff = Backoff(first=5, maximum=15, random=Highest())
    assert [backoff.failed(ABSENT, now=now) for now in (0, 40, 100, 1000)] == [5, 5, 10, 15]


def test_the_first_10_s_of_a_devices_absence_count_as_one_failure() -> None:
    backoff = Backoff(max_retries=2)
    for now in (0, 0.1, 5, 9.9):
        backoff.failed(ABSENT, now=now)
        assert backoff.failures == 1
    backoff.failed(ABSENT, now=10)
    assert backoff.failures == 2
    with pytest.raises(RegistrationRejected) as caught:
        backoff.failed(ABSENT, now=10.1)
    assert caught.value is ABSENT


def test_without_retries_an_absent_device_is_given_up_immediately() -> None:
    with pytest.raises(RegistrationRejected):
        Backoff(max_retries=0).failed(ABSENT, now=0)


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        ConnectTimeout("no connection within 60 s"),
        HandshakeRejected("not found", status_code=404),
        HandshakeRejected("too many", status_code=429),
        HandshakeRejected("out of order", status_code=500),
        HandshakeRejected("overloaded", status_code=503),
        RegistrationRejected("refused", words="some other words"),
    ],
    ids=str,
)
def test_a_transient_failure_is_retried_with_doubling_delays(error: Exception) -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(error, now=0) for _ in range(3)] == [1, 2, 4]


@pytest.mark.parametrize("status_code", [401, 403])
def test_a_refused_token_is_retried_every_300_s_and_needs_attention(status_code: int) -> None:
    backoff = Backoff(random=Highest())
    for _ in range(3):
        assert backoff.failed(HandshakeRejected("is the token right?", status_code=status_code), now=0) == 300
        assert backoff.needs_attention
    # It does not show whether the server can be reached.
    assert backoff.failed(REFUSED, now=0) == 1
    assert not backoff.needs_attention


def test_a_registered_name_is_retried_every_5_s_and_needs_attention_every_60_s() -> None:
    backoff = Backoff(random=Highest())
    attention: list[float] = []
    waited = 0.0
    for _ in range(30):
        wait = backoff.failed(REGISTERED, now=0)
        assert wait == 5
        if backoff.needs_attention:
            attention.append(waited)
        waited += wait
    assert attention == [60, 120]
    assert backoff.failed(REFUSED, now=0) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_another_failure_restarts_the_60_s_of_a_registered_name(lost: bool) -> None:
    backoff = Backoff()
    for _ in range(12):
        backoff.failed(REGISTERED, now=0)
    if lost:
        backoff.lost(1, LOST, now=0)
    else:
        backoff.failed(REFUSED, now=0)
    for _ in range(12):
        backoff.failed(REGISTERED, now=0)
        assert not backoff.needs_attention
    backoff.failed(REGISTERED, now=0)
    assert backoff.needs_attention


def test_an_unacceptable_certificate_is_raised_as_the_same_error() -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = OSError("wrapped")
    error.__cause__.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    with pytest.raises(ConnectFailed) as caught:
        Backoff().failed(error, now=0)
    assert caught.value is error


def test_another_tls_failure_is_retried() -> None:
    error = ConnectFailed("no TLS connection")
    error.__cause__ = ssl.SSLError("handshake failure")
    assert Backoff(random=Highest()).failed(error, now=0) == 1


@pytest.mark.parametrize(
    "error", [ConfigError("a bad URL"), MessageTooLarge("too large"), ValueError("a bug")], ids=str
)
def test_an_error_other_than_a_failed_connection_is_raised_as_the_same_error(error: Exception) -> None:
    backoff = Backoff()
    with pytest.raises(type(error)) as caught:
        backoff.failed(error, now=0)
    assert caught.value is error
    assert backoff.failures == 0


def test_the_loss_of_a_connection_of_60_s_resets_the_backoff() -> None:
    backoff = Backoff(random=Highest())
    assert [backoff.failed(REFUSED, now=now) for now in (0, 30, 60, 90)] == [1, 2, 4, 8]
    assert backoff.lost(59.9, LOST, now=150) == 16
    assert backoff.lost(60, LOST, now=210) == 1
    assert backoff.failures == 1


def test_the_last_error_is_raised_after_the_last_retry() -> None:
    backoff = Backoff(max_retries=2)
    backoff.failed(REFUSED, now=0)
    backoff.failed(REGISTERED, now=0)
    with pytest.raises(ConnectionLost) as caught:
        backoff.lost(1, LOST, now=0)
    assert caught.value is LOST


def test_without_retries_the_first_failure_is_raised() -> None:
    with pytest.raises(ConnectFailed):
        Backoff(max_retries=0).failed(REFUSED, now=0)


def test_a_steady_connection_resets_the_retries() -> None:
    backoff = Backoff(max_retries=1)
    for _ in range(5):
        backoff.lost(60, LOST, now=0)


@pytest.mark.parametrize(
    ("first", "maximum"), [(0, 60), (-1, 60), (math.nan, 60), (61, 60), (1, math.nan), (1, math.inf)]
)
def test_invalid_delays_are_a_config_error(first: float, maximum: float) -> None:
    with pytest.raises(ConfigError, match="waits must be above 0 s"):
        Backoff(first=first, maximum=maximum)


def test_a_negative_number_of_retries_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="max_retries"):
        Backoff(max_retries=-1)


class Endings(RuleBasedStateMachine):
    """Under any sequence of failures, each delay is within the bounds of its kind, and consecutive failures are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.backoff = Backoff(first=2, maximum=50, max_retries=20, random=Highest())
        self.now = 0.0
        self.ceiling = 2.0
        self.failures = 0
        self.outage_began: float | None = None
        self.absent_since: float | None = None

    def _fails(self, error: Exception, expected: Callable[[float], float], *, counts: bool = True) -> None:
        if self.outage_began is None:
            self.outage_began = self.now
        if error is not ABSENT:
            self.absent_since = None
        self.failures += counts
        if counts and self.failures > 20:
            with pytest.raises(type(error)) as caught:
                self._end(error)
            assert caught.value is error
        else:
            assert self._end(error) == pytest.approx(expected(self.now - self.outage_began))

    def _end(self, error: Exception) -> float:
        if error is LOST:
            return self.backoff.lost(self.lived, LOST, now=self.now)
        return self.backoff.failed(error, now=self.now)

    def _doubled(self, outage: float) -> float:
        ceiling = min(self.ceiling, 4) if outage < 30 else self.ceiling
        self.ceiling = min(ceiling * 2, 50)
        return ceiling

    @rule(seconds=st.sampled_from([0.5, 1, 4, 10, 30, 100, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(status_code=st.sampled_from([400, 404, 429, 500, 502, 503, 504]))
    def rejected(self, status_code: int) -> None:
        self._fails(HandshakeRejected("rejected", status_code=status_code), self._doubled)

    @rule()
    def refused(self) -> None:
        self._fails(REFUSED, self._doubled)

    @rule(lived=st.one_of(st.sampled_from([0, 59.9, 60]), st.floats(min_value=0, max_value=1e6)))
    def lost(self, lived: float) -> None:
        self.lived = lived
        if lived >= 60:
            self.ceiling, self.failures, self.outage_began = 2, 0, None
        self._fails(LOST, self._doubled)

    @rule()
    def absent(self) -> None:
        if self.absent_since is None:
            self.absent_since = self.now
        absence = self.now - self.absent_since
        counts = absence == 0 or absence >= 10
        self._fails(ABSENT, lambda _: min(max(2, absence / 10), 50), counts=counts)

    @rule()
    def registered(self) -> None:
        self._fails(REGISTERED, lambda _: 5)

    @rule(status_code=st.sampled_from([401, 403]))
    def not_allowed(self, status_code: int) -> None:
        self._fails(HandshakeRejected("is the token right?", status_code=status_code), lambda _: 300)

    @invariant()
    def the_count_of_failures_is_correct(self) -> None:
        assert self.backoff.failures == self.failures


TestEndings = Endings.TestCase
