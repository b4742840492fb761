"""Options that several commands share."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from galaxy_trio._cli.terminal import log_level

if TYPE_CHECKING:
    from collections.abc import Callable

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


json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
