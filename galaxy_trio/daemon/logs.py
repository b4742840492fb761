"""The daemon's log on stderr, as lines of text or as JSON objects."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from galaxy_trio._console_log import ConsoleFormatter, handling_others
from galaxy_trio._printable import printable

if TYPE_CHECKING:
    from collections.abc import Generator


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return printable(json.dumps(shown))


def _handler(form: str) -> logging.Handler:
    handler = logging.StreamHandler()
    console = ConsoleFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(_Json() if form == "json" else console)
    return handler


@contextmanager
def logging_as(form: str) -> Generator[None]:
    """Log to stderr, and nowhere else, inside the block. Warnings and errors of other libraries are logged too.

    Args:
        form: ``console`` or ``json``.
    """
    logger = logging.getLogger("galaxy_trio")
    handlers, level = logger.handlers, logger.level
    logger.handlers = [_handler(form)]
    # The connections of tasks log at `info`, which is too much for an operator, unless the level was set explicitly.
    own = logging.getLogger("galaxy_trio.daemon")
    own_level = own.level
    if level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
        own.setLevel(logging.INFO)
    try:
        with handling_others(_handler(form)):
            yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
        own.setLevel(own_level)
