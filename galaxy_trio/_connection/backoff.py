"""The delay before the next attempt to connect, or the decision to give up. Pure: it neither waits nor reads a clock.

See "Reconnecting" in docs/reference/wire.md.
"""

from __future__ import annotations

import math
import ssl
from random import Random
from typing import TYPE_CHECKING, Final

from galaxy_trio.errors import ConfigError, ConnectFailed, ConnectionLost, HandshakeRejected, RegistrationRejected

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST: Final = 1.0
"""The maximum of the first delay, in seconds."""
MAXIMUM: Final = 60.0
"""The maximum of any delay with jitter, in seconds."""
RECENT: Final = 30.0
"""Seconds for which an outage is recent: its delays are short, because most servers return within that time."""
RECENT_MAXIMUM: Final = 4.0
"""The maximum of a delay with jitter in a recent outage, in seconds, unless `first` is longer."""
ABSENT: Final = 10.0
"""Seconds of "not connected" that count as one failure: after a server restart, its devices need some time to register."""
STEADY: Final = 60.0
"""The age in seconds from which the loss of a connection counts as the first failure."""
STILL_REGISTERED: Final = 5.0
"""The delay in seconds while the server has not noticed the end of the previous connection."""
NOT_ALLOWED: Final = 300.0
"""The delay in seconds after the server refused the token: an operator has to change it."""
LONGEST_REQUEST: Final = 300.0
"""The maximum of the seconds that a busy server may ask for, which are added to the delay with jitter."""

_PATIENCE: Final = 60.0
"""Seconds of "already registered" after which another client may use the name, which is worth a warning."""
_ABSENCE_SHARE: Final = 0.1
"""The maximum of the next delay for an absent device, as a fraction of its absence so far."""
_NOT_CONNECTED: Final = "not connected"
_NOT_ALLOWED: Final = (401, 403)


class Backoff:
    """Exponential backoff with full jitter: computes the delay before the next attempt from the last failure.

    After most failures the delay is random, between 0 and a ceiling that begins at `first` and doubles up to `maximum`. In the first 30 s
    of an outage the ceiling is at most 4 s. While the server replies that the device is not connected, the ceiling is a tenth of the
    time since its first such reply, but at least `first`; this neither advances nor resets the doubling. A name that is still
    registered is retried every 5 s, a refused token every 300 s. The time that a busy server asks for, up to 300 s, is added to the
    random delay. An unacceptable certificate and an unusable configuration are raised, because another attempt does not help.

    All times are seconds on one monotonic clock, such as `trio.current_time`.

    Args:
        first: The maximum of the first delay, in seconds.
        maximum: The maximum of any delay with jitter, in seconds.
        max_retries: The number of consecutive failures that are followed by another attempt; None for no limit.
        random: The source of the jitter.

    Attributes:
        needs_attention: Whether an operator should look at the last failure: the token was refused, or the name has been registered
            for another 60 s.
    """

    def __init__(
        self,
        *,
        first: float = FIRST,
        maximum: float = MAXIMUM,
        max_retries: int | None = None,
        random: Random | None = None,
    ) -> None:
        if not (0 < first < math.inf and first <= maximum < math.inf):
            raise ConfigError(f"waits must be above 0 s, and the first ({first!r}) not above the maximum ({maximum!r})")
        if max_retries is not None and max_retries < 0:
            raise ConfigError(f"max_retries must not be below 0, and is {max_retries!r}")
        self._first = first
        self._maximum = maximum
        self._max_retries = max_retries
        # Jitter is not a secret.
        self._random = Random() if random is None else random  # noqa: S311
        self._ceiling = first
        self._failures = 0
        self._still_registered = 0
        self._outage_began: float | None = None
        self._absent_since: float | None = None
        self.needs_attention: bool = False

    @property
    def failures(self) -> int:
        """The number of failures since the last steady connection. "Not connected" counts once in its first 10 s."""
        return self._failures

    def failed(self, error: Exception, *, now: float) -> float:
        """Record a failed attempt to connect.

        Args:
            error: The error that the attempt raised.
            now: The current time.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            Exception: `error` itself, if another attempt does not help or the retries are used up.
        """
        self.needs_attention = False
        if not isinstance(error, ConnectFailed | ConnectionLost) or _is_unacceptable_certificate(error):
            raise error
        if self._outage_began is None:
            self._outage_began = now
        absence = self._note_absence(error, now)
        if absence is None or not 0 < absence < ABSENT:
            self._failures += 1
            if self._max_retries is not None and self._failures > self._max_retries:
                raise error
        if is_still_registered(error):
            waited = self._still_registered * STILL_REGISTERED
            self._still_registered += 1
            self.needs_attention = waited > 0 and waited % _PATIENCE == 0
            return STILL_REGISTERED
        self._still_registered = 0
        if absence is not None:
            return self._random.uniform(0, min(max(absence * _ABSENCE_SHARE, self._first), self._maximum))
        if isinstance(error, HandshakeRejected) and error.status_code in _NOT_ALLOWED:
            self.needs_attention = True
            return NOT_ALLOWED
        delay = self._draw_exponential(now - self._outage_began)
        if isinstance(error, HandshakeRejected) and error.retry_after is not None:
            delay += min(error.retry_after, LONGEST_REQUEST)
        return delay

    def lost(self, lived: float, error: ConnectionLost, *, now: float) -> float:
        """Record the loss of a registered connection.

        Args:
            lived: Seconds between its registration and its end.
            error: The reason of its end.
            now: The current time.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            ConnectionLost: `error` itself, if the retries are used up.
        """
        if lived >= STEADY:
            self._ceiling = self._first
            self._failures = 0
            self._outage_began = None
        return self.failed(error, now=now)

    def _note_absence(self, error: Exception, now: float) -> float | None:
        """Return the seconds since the first consecutive reply that the device is not connected; None for another error."""
        if not (isinstance(error, RegistrationRejected) and says_not_connected(error.words)):
            self._absent_since = None
            return None
        if self._absent_since is None:
            self._absent_since = now
        return now - self._absent_since

    def _draw_exponential(self, outage: float) -> float:
        ceiling = self._ceiling
        if outage < RECENT:
            ceiling = min(ceiling, max(RECENT_MAXIMUM, self._first))
        self._ceiling = min(ceiling * 2, self._maximum)
        return self._random.uniform(0, ceiling)


def is_still_registered(error: Exception) -> bool:
    """Whether the server refused a registration because its name is registered, possibly by a connection whose end it has not noticed."""
    return isinstance(error, RegistrationRejected) and "already registered" in error.words.lower()


def says_not_connected(words: str) -> bool:
    """Whether the server refused because the device is not registered with it now."""
    return _NOT_CONNECTED in words.lower()


def _is_unacceptable_certificate(error: Exception) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: Exception) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
