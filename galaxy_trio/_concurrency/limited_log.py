"""A log of problems that others can cause at any rate: one line, then a count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

import trio

from galaxy_trio._counted import counted

if TYPE_CHECKING:
    from typing import Never

_INTERVAL: Final = 60.0
"""Seconds for which problems are counted after one was logged."""
_MAX_LINE: Final = 200


class LimitedLog:
    """Logs a problem immediately, and counts the further ones for a minute instead of logging each.

    Args:
        logger: Gets the lines.
        level: The level of the lines.
    """

    def __init__(self, logger: logging.Logger, level: int = logging.WARNING) -> None:
        self._logger = logger
        self._level = level
        self._quiet_until = -trio.current_time()
        self._counted = 0

    def problem(self, message: str, *arguments: object, error: Exception | None = None) -> None:
        """Log a problem, or count it if the last line is less than a minute old.

        Args:
            message: The problem, with placeholders for the arguments as in `logging`.
            arguments: The arguments.
            error: Its traceback is logged after the line.
        """
        if trio.current_time() < self._quiet_until:
            self._counted += 1
            return
        self._log_count()
        self._logger.log(self._level, message, *arguments, exc_info=error)
        self._quiet_until = trio.current_time() + _INTERVAL

    async def log_counts(self) -> Never:
        """Log the counts as their minutes end, and the last one at the end. Run it in a task; cancel it to end it."""
        try:
            while True:
                await trio.sleep(_INTERVAL)
                if trio.current_time() >= self._quiet_until:
                    self._log_count()
        finally:
            self._log_count()

    def _log_count(self) -> None:
        if self._counted:
            self._logger.log(self._level, "%s like the last one not logged", counted(self._counted, "more problem"))
            self._counted = 0


def in_one_line(error: BaseException) -> str:
    """An error's type and message, shortened; of a group, those of its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_LINE]
