"""The daemon's log."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime

import pytest

from galaxy_trio.daemon.logs import logging_as

pytestmark = pytest.mark.daemon


def test_log_is_lines_of_text_or_json_objects(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio.daemon.test")
    with logging_as("console"):
        logger.info("something\nhappened")
        logging.getLogger("galaxy_trio._connection.link").info("too much")
    with logging_as("json"):
        try:
            raise ValueError("wrong")
        except ValueError:
            logger.exception("it was %s", "bad")
    logger.error("after the block")
    console, structured = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    galaxy_trio.daemon.test: something happened", console)
    record = json.loads(structured)
    assert (record["level"], record["logger"], record["message"]) == ("error", "galaxy_trio.daemon.test", "it was bad")
    assert "ValueError: wrong" in record["exception"]
    assert datetime.fromisoformat(record["time"]).tzinfo is not None


def test_log_level_set_by_the_caller_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("galaxy_trio")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with logging_as("console"):
            logging.getLogger("galaxy_trio._connection.link").debug("all of it")
    finally:
        logger.setLevel(before)
    assert "all of it" in capsys.readouterr().err
