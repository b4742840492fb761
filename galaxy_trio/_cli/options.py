"""Options of several commands, and types of options."""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import click

from galaxy_trio._cli.terminal import log_level
from galaxy_trio._transport.url import parse_url
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST: Final = 999_999_999

_Command = TypeVar("_Command", bound="Callable[..., object]")


class Decorator(Protocol):
    """Adds an option to a command."""

    def __call__(self, command: _Command, /) -> _Command:
        """Return the command with the option."""
        ...


def _set_log_level(context: click.Context, parameter: click.Parameter, value: int) -> None:
    del parameter
    if value:
        context.with_resource(log_level(logging.INFO if value == 1 else logging.DEBUG))


verbose: Decorator = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_set_log_level,
    help="Show the log on stderr; -vv includes debug records.",
)  # fmt: skip


def log_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the log options of a command that runs until it is stopped. It shows its log by default."""

    @functools.wraps(command)
    def with_log(*arguments: object, verbose: bool, quiet: bool, **others: object) -> int:
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        # `-v` before the command's name counts too.
        with log_level(min(level, logging.getLogger("galaxy_trio").level or level)):
            return command(*arguments, **others)

    more = click.option("-v", "--verbose", is_flag=True, help="Show debug records as well.")
    less = click.option("-q", "--quiet", is_flag=True, help="Show only warnings and errors.")
    return more(less(with_log))


json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def seconds(value: str) -> float:
    """Parse a time in seconds: above 0, or ``inf`` for no limit."""
    number = _number(value)
    if not number > 0:
        raise click.BadParameter(f"{value!r} is not a number of seconds above 0; use 'inf' for no limit.")
    return number


def finite_seconds(value: str) -> float:
    """Parse a time in seconds: above 0, and finite."""
    number = _number(value)
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{value!r} is not a finite number of seconds above 0.")
    return number


def backoff_seconds(value: str) -> float:
    """Parse a time in seconds: 0 or above, and finite."""
    number = _number(value)
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{value!r} is not a finite number of seconds of 0 or more.")
    return number


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def whole_number(minimum: int, maximum: int = _MOST) -> Callable[[str], int]:
    """Return a function that parses a whole number, and checks that it is in a range."""
    limits = f"of at least {minimum}" if maximum == _MOST else f"from {minimum} to {maximum}"

    def parse(value: str) -> int:
        text = str(value)
        digits = text.removeprefix("-") if minimum < 0 else text
        is_number = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(_MOST))
        number = int(text) if is_number else minimum - 1
        if not minimum <= number <= maximum:
            raise click.BadParameter(f"{text[:100]!r} is not a whole number {limits}.")
        return number

    return parse


def host_name(value: str) -> str:
    """Check that an argument is an IP address or a host name."""
    text = valid_text(value)
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if parse_url(f"ws://[{host}]" if ":" in host else f"ws://{host}").host == host.lower():
            return host
    except ConfigError:
        pass
    raise click.BadParameter(
        f"{value[:100]!r} is neither an IP address nor a host name; it should look like 127.0.0.1 or example.org."
    )


def valid_text(value: str) -> str:
    """Check that an argument could be decoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        # Python passes undecodable bytes on as lone surrogates.
        raise click.BadParameter("the text is not valid UTF-8.") from None
    return value


def limit_option(what: str) -> Decorator:
    """The option for the largest number of things that a command lists."""
    return click.option(
        "--limit",
        type=whole_number(1, 1000),
        metavar="NUMBER",
        default=20,
        show_default=True,
        help=f"The largest number of {what} to list.",
    )


def header_text(value: str) -> str:
    """Check that an argument can be an HTTP header."""
    if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
        raise click.BadParameter(f"{value[:100]!r} is not a text of printable ASCII characters.")
    return value
