"""The daemon's log on stderr, as lines of text or as JSON objects."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class _Console(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # overrides a method of logging
        # A line break in logged text must not look like the start of a record.
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


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
        return json.dumps(shown)


@contextmanager
def logging_as(form: str) -> Generator[None]:
    """Log to stderr, and nowhere else, inside the block.

    Args:
        form: ``console`` or ``json``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Console())
    logger = logging.getLogger("galaxy_trio")
    handlers, level = logger.handlers, logger.level
    logger.handlers = [handler]
    # The connections of tasks log at `info`, which is too much for an operator, unless the level was set explicitly.
    own = logging.getLogger("galaxy_trio.daemon")
    own_level = own.level
    if level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
        own.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
        own.setLevel(own_level)
