"""Log records as printable text, those of other libraries too."""

from __future__ import annotations

import logging
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from galaxy_trio._printable import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Generator

_INDENT: Final = "  "


class ConsoleFormatter(logging.Formatter):
    """Formats a record as one line. The lines of a traceback are indented, so that no text in it can look like another record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return printable text."""
        record.message = one_line(record.getMessage())
        record.asctime = self.formatTime(record, self.datefmt)
        parts = [printable(self.formatMessage(record))]
        if record.exc_info:
            parts.append(_indented(self.formatException(record.exc_info)))
        if record.stack_info:
            parts.append(_indented(record.stack_info))
        return "\n".join(parts)


def _indented(text: str) -> str:
    # Every kind of line end counts, so that none is left for the terminal.
    return textwrap.indent("\n".join(printable(line) for line in text.splitlines()), _INDENT, lambda _: True)


@contextmanager
def handling_others(handler: logging.Handler) -> Generator[None]:
    """Let a handler take the warnings and errors of libraries whose log goes nowhere else.

    By default, Python prints them to stderr as they are.
    """
    handler.setLevel(logging.WARNING)
    before, logging.lastResort = logging.lastResort, handler
    try:
        yield
    finally:
        logging.lastResort = before
