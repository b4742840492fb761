"""Checks of servers: each is reached as a client reaches it, for each of its devices; and its clock is compared with ours."""

from __future__ import annotations

import errno
import ipaddress
import shlex
import socket
import ssl
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from galaxy_trio import (
    ConfigError,
    ConnectFailed,
    ConnectionOptions,
    ConnectTimeout,
    DeviceConfig,
    GalaxyError,
    HandshakeRejected,
    RegistrationRejected,
    RequestRejected,
    open_connection,
)
from galaxy_trio._cli.doctor.findings import Section
from galaxy_trio._cli.times import duration, parse_time
from galaxy_trio._concurrency import wall_clock
from galaxy_trio._config.certificates import trusting_context
from galaxy_trio._connection.backoff import says_not_connected
from galaxy_trio._counted import counted
from galaxy_trio._transport.proxy import find_proxy
from galaxy_trio._transport.url import parse_url
from galaxy_trio.constellation.profile import contradiction_of
from galaxy_trio.events import ConnectionOpened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from galaxy_trio._transport.url import Target
    from galaxy_trio.events import Event

MAX_SKEW: Final = 60.0
"""Seconds between the server's clock and ours that are no problem."""
_MAX_CONNECTING: Final = 10
"""Devices of one server that are checked at a time."""
_MAX_SERVERS: Final = 50
"""Servers that are checked at a time."""
_NAMES_SHOWN: Final = 5
"""Devices with the same problem that are named."""
_STEPS: Final = ("DNS", "TCP", "TLS", "WebSocket handshake", "registration")
_STEPS_BEHIND_A_PROXY: Final = ("proxy", "TLS", "WebSocket handshake", "registration")
"""The proxy resolves the server's name, and connects to it."""
_ADVICE: Final = {
    "DNS": "correct the host in server_url, or this machine's name servers",
    "TCP": "start the server, correct host and port in server_url, or let the port through the firewalls between",
    "proxy": "correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or list the host in NO_PROXY if it is reached directly",
    "TLS": "correct the scheme in server_url (ws:// or wss://), set ca_file to the certificate of the server's authority, "
    "or renew the server's certificate for this name",
    "WebSocket handshake": "correct host, port and path in server_url: another program answers there, or none",
    "registration": "look at the server's log; is it an AIP server?",
}
_LOG: Final = "look at the log of the server, and of a proxy in front of it"
_STATUS_ADVICE: Final = {
    421: "use the server's own name in server_url, or let it accept this one, as with --allow-host of galaxy-trio server",
    429: "try again later, or increase the server's limit of connections",
    503: "try again later, or increase the server's limit of connections",
    **dict.fromkeys((500, 502, 504), _LOG),
}
_REACHING: Final = ("DNS", "TCP", "proxy")
_SILENT: Final = "restart the server, which accepts connections and says nothing, or correct the port in server_url"
_TOKEN: Final = "set token_file, token_env or token of the device to the server's token"  # noqa: S105  # advice
_TOKEN_REFUSALS: Final = (401, 403)
_DURING_THE_HANDSHAKE: Final = (errno.ECONNRESET, errno.EPIPE)


@attrs.frozen
class _Failure:
    """Why a device was not reached.

    Attributes:
        step: The step that failed; None if only this device is affected, and not its server.
        text: What happened.
        advice: What to do.
        names: Whether the names of the devices belong before the text.
    """

    step: str | None
    text: str
    advice: str
    names: bool = False


@attrs.define
class _Probe:
    """The check of one device.

    Attributes:
        opened: Whether the WebSocket was opened.
        failure: Why the device was not reached; None if it was.
        system: The device's operating system.
        contradiction: How that contradicts the configuration; None if it does not.
        skew: Seconds by which the server's clock is ahead of ours; None if it is not known.
        strange_time: The server's time, if it cannot be read.
    """

    device: DeviceConfig
    opened: bool = False
    failure: _Failure | None = None
    system: str = ""
    contradiction: str | None = None
    skew: float | None = None
    strange_time: str | None = None

    def on_event(self, event: Event) -> None:
        self.opened = self.opened or isinstance(event, ConnectionOpened)


async def check_servers(devices: Sequence[DeviceConfig], timeout: float, on_done: Callable[[Section], None]) -> None:
    """Check the servers of these devices, side by side.

    Args:
        devices: The devices.
        timeout: Seconds for connecting, again for the registration, and again for the device's information.
        on_done: Called with the findings about each server, in the order of the devices.
    """
    groups: dict[tuple[str, str | None], list[DeviceConfig]] = {}
    for device in devices:
        groups.setdefault((parse_url(device.server_url).shown, device.ca_file), []).append(device)
    sections = {key: Section(key[0]) for key in groups}
    done = {key: trio.Event() for key in groups}
    limiter = trio.CapacityLimiter(_MAX_SERVERS)

    async def check(key: tuple[str, str | None]) -> None:
        async with limiter:
            await _check_server(sections[key], groups[key], timeout)
        done[key].set()

    async with trio.open_nursery() as nursery:
        for key in groups:
            nursery.start_soon(check, key)
        for key, section in sections.items():
            await done[key].wait()
            on_done(section)


async def _check_server(section: Section, devices: Sequence[DeviceConfig], timeout: float) -> None:
    first, *others = (_Probe(device) for device in devices)
    try:
        context = await trio.to_thread.run_sync(_load_context, first.device, abandon_on_cancel=True)
    except ConfigError as error:
        section.problem(str(error), "correct ca_file")
        return
    await _run(first, context, timeout)
    if first.failure is not None and first.failure.step is not None and not _is_of_token(first.failure):
        _report_steps(section, first)
        if others:
            section.warn(
                f"not checked: {counted(len(others), 'more device')}", "check again when the server is reached"
            )
        return
    limiter = trio.CapacityLimiter(_MAX_CONNECTING)

    async def check(probe: _Probe) -> None:
        async with limiter:
            await _run(probe, context, timeout)

    async with trio.open_nursery() as nursery:
        for probe in others:
            nursery.start_soon(check, probe)
    probes = [first, *others]
    _report_steps(section, max(probes, key=lambda probe: (probe.failure is None, probe.opened)))
    _report_clock(section, probes)
    _report_devices(section, probes)


async def _run(probe: _Probe, context: ssl.SSLContext | None, timeout: float) -> None:
    """Connect and register for a device, and ask for its information."""
    device = probe.device
    try:
        token = await trio.to_thread.run_sync(device.read_token, abandon_on_cancel=True)
        async with open_connection(
            device.server_url,
            device.device_id,
            client_name="galaxy_trio_doctor",
            token=token,
            headers=device.headers,
            ssl_context=context,
            options=ConnectionOptions(connect_timeout=timeout, register_timeout=timeout, proxy=True),
            on_event=probe.on_event,
        ) as connection:
            _compare_clocks(probe, connection.server_timestamp)
            info = await connection.device_info(timeout=timeout)
            probe.system, probe.contradiction = str(info.platform), contradiction_of(device, info)
    except GalaxyError as error:
        probe.failure = await _failure(probe, error, timeout)


def _load_context(device: DeviceConfig) -> ssl.SSLContext | None:
    return trusting_context(device.ca_file) if parse_url(device.server_url).secure else None


def _compare_clocks(probe: _Probe, timestamp: str | None) -> None:
    if timestamp is None:
        return
    # A time without a zone is in UTC, as AIP says.
    time = parse_time(timestamp) or parse_time(f"{timestamp}+00:00")
    if time is None:
        probe.strange_time = timestamp
    else:
        probe.skew = (time.astimezone(UTC) - wall_clock.now()).total_seconds()


async def _failure(probe: _Probe, error: GalaxyError, timeout: float) -> _Failure:
    """Find out which step failed, and what to do."""
    device = probe.device
    match error:
        case ConfigError():
            return _Failure(None, str(error), "correct the configuration of this device")
        case HandshakeRejected() if error.status_code in _TOKEN_REFUSALS:
            return _Failure("WebSocket handshake", str(error), _TOKEN)
        case HandshakeRejected() if error.status_code in _STATUS_ADVICE:
            return _Failure("WebSocket handshake", str(error), _STATUS_ADVICE[error.status_code])
        case RegistrationRejected() | RequestRejected() if says_not_connected(error.words):
            url = parse_url(device.server_url).shown
            start = f"start the agent: galaxy-trio agent {url} {shlex.quote(device.device_id)}"
            return _Failure(None, "not registered with the server", start, names=True)
        case RegistrationRejected() | RequestRejected():
            return _Failure(None, str(error), "look at the server's log")
        case _ if probe.opened:
            return _Failure("registration", str(error), _ADVICE["registration"])
        case _:
            step = await _step_of(device.server_url, error, timeout)
            advice = _SILENT if isinstance(error, ConnectTimeout) and step not in _REACHING else _ADVICE[step]
            return _Failure(step, str(error), advice)


async def _step_of(url: str, error: GalaxyError, timeout: float) -> str:
    """Return the step before the WebSocket handshake that failed."""
    if isinstance(error, ConnectFailed) and error.proxy is not None:
        return "proxy"
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "DNS"
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "TLS" in str(error).partition(":")[0]:
        return "TLS"
    if any(isinstance(cause, OSError) and cause.errno not in _DURING_THE_HANDSHAKE for cause in causes):
        return "TCP"
    target = parse_url(url)
    if not isinstance(error, ConnectTimeout):
        return "WebSocket handshake"
    if _has_proxy(target):
        return "TLS" if target.secure else "WebSocket handshake"
    return await _silent_step(target.host, target.port, timeout, secure=target.secure)


def _has_proxy(target: Target) -> bool:
    """Whether the environment names a proxy for a server."""
    try:
        return find_proxy(True, target) is not None
    except ConfigError:
        return False


async def _silent_step(host: str, port: int, timeout: float, *, secure: bool) -> str:
    """Return the step at which nothing answers."""
    step = "DNS"
    with suppress(OSError), trio.move_on_after(timeout):
        await trio.socket.getaddrinfo(host, port)
        step = "TCP"
        await trio.aclose_forcefully(await trio.open_tcp_stream(host, port))
        step = "TLS" if secure else "WebSocket handshake"
    return step


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The causes of an error, and what is in those that are groups."""
    cause = error.__cause__
    if cause is not None:
        yield cause
        yield from _causes(cause)
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield inner
            yield from _causes(inner)


def _is_of_token(failure: _Failure) -> bool:
    return failure.advice == _TOKEN


def _report_steps(section: Section, probe: _Probe) -> None:
    """Report how far a connection came."""
    target = parse_url(probe.device.server_url)
    every_step = _STEPS_BEHIND_A_PROXY if _has_proxy(target) else _STEPS
    steps = [step for step in every_step if not _is_left_out(step, target.host, secure=target.secure)]
    failed = None if probe.failure is None else probe.failure.step
    passed = steps[: steps.index(failed)] if failed in steps else steps
    if passed and (failed is not None or probe.opened):
        section.ok(", ".join(passed))
    if probe.failure is not None and failed is not None:
        section.problem(f"{failed}: {probe.failure.text}", probe.failure.advice)


def _is_left_out(step: str, host: str, *, secure: bool) -> bool:
    if step == "TLS":
        return not secure
    return step == "DNS" and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _report_clock(section: Section, probes: Sequence[_Probe]) -> None:
    """Compare the clocks: the server's own and this machine's."""
    strange = next((probe.strange_time for probe in probes if probe.strange_time is not None), None)
    skews = [probe.skew for probe in probes if probe.skew is not None]
    if strange is not None:
        section.warn(f"the server's timestamp {strange[:60]!r} is not a time in ISO 8601", "update the server")
    elif skews and abs(skews[0]) > MAX_SKEW:
        direction = "ahead of" if skews[0] > 0 else "behind"
        section.problem(
            f"the server's clock is {duration(abs(skews[0]))} {direction} this machine's",
            "set both clocks, for example with NTP (timedatectl set-ntp true)",
        )
    elif skews:
        section.ok("the server's clock and this machine's agree")


def _report_devices(section: Section, probes: Sequence[_Probe]) -> None:
    """Report each device; those with the same problem together, if they are many."""
    reached = [probe for probe in probes if probe.failure is None]
    by_system: dict[str, list[str]] = {}
    for probe in reached:
        by_system.setdefault(probe.system, []).append(probe.device.device_id)
    for system, names in by_system.items():
        section.ok(f"{_named(names)} registered ({system})")
    for probe in reached:
        if probe.contradiction is not None:
            problem, _, advice = probe.contradiction.rpartition(": ")
            section.warn(f"device {probe.device.device_id}: {problem}", advice)
    reported: set[str] = set()
    for probe in probes:
        failure = probe.failure
        if failure is None or failure.text in reported or (failure.step is not None and not reached):
            continue
        same = [one.device.device_id for one in probes if one.failure is not None and one.failure.text == failure.text]
        reported.add(failure.text)
        subject = f"{_named(same)}{'' if failure.names else ':'} " if failure.names or len(same) > 1 else ""
        section.problem(f"{subject}{failure.text}", failure.advice)


def _named(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"device {names[0]}"
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return f"{counted(len(names), 'device')}, {', '.join(names[:_NAMES_SHOWN])}{more},"
