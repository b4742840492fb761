"""Options that several commands have."""

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
    """Gives a command an option."""

    def __call__(self, command: _Command, /) -> _Command:
        """The same command, with the option."""
        ...


def _set_log_level(context: click.Context, parameter: click.Parameter, value: int) -> None:
    del parameter
    if value:
        context.with_resource(log_level(logging.INFO if value == 1 else logging.DEBUG))


verbose: Decorator = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_set_log_level,
    help="Show the log on stderr; -vv shows more of it.",
)  # fmt: skip


def tells_what_happens(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command that runs until it is stopped options for its log, which it shows."""

    @functools.wraps(command)
    def telling(*arguments: object, verbose: bool, quiet: bool, **others: object) -> int:
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        # What was said before the command's name counts too.
        with log_level(min(level, logging.getLogger("galaxy_trio").level or level)):
            return command(*arguments, **others)

    more = click.option("-v", "--verbose", is_flag=True, help="Show more of what happens.")
    less = click.option("-q", "--quiet", is_flag=True, help="Show only what goes wrong.")
    return more(less(telling))


json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout."
)
