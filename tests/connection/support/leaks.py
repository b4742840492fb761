"""Finds tokens in anything that a connection shows."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, quote_plus

from galaxy_trio import DeviceInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from galaxy_trio.testing import ScriptedPeer


INFO = DeviceInfo("device_001", "linux")
TOKENS = ["s3cret-T0ken", "se cret&=?#/%2B+é☃\"'\\"]
"""A typical token, and one that is written differently in every kind of quotes."""


def _spellings(token: str) -> set[str]:
    """Return the spellings of a token: plain, quoted for a URL, in the repr of a string and of bytes."""
    spellings = {token, quote(token, safe=""), quote(token), quote_plus(token), quote(token, safe="/?%:@!$&'()*+,;=~")}
    return spellings | {repr(token)[1:-1], repr(token.encode())[2:-1], token.encode().decode("latin-1")}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception with its causes, contexts and members, even those that a traceback omits."""
    if error is None:
        return
    yield error
    yield from chain(error.__cause__)
    if error.__context__ is not error.__cause__:
        yield from chain(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from chain(member)


def _words_of(thing: object) -> list[str]:
    words = [str(thing), repr(thing)]
    if isinstance(thing, BaseException):
        words += traceback.format_exception(thing)
        for error in chain(thing):
            words += [str(error), repr(error), repr(error.args), repr(vars(error))]
    return words


def assert_not_shown(token: str, caplog: pytest.LogCaptureFixture, *things: object) -> None:
    """Assert that neither these objects nor any log record contains the token."""
    words = [word for thing in things for word in _words_of(thing)]
    words.append(caplog.text)
    for record in caplog.records:
        words += [record.getMessage(), repr(record.msg), repr(record.args), record.exc_text or "", repr(vars(record))]
        if record.exc_info:
            words += _words_of(record.exc_info[1])
    shown = [word for word in words for spelling in _spellings(token) if spelling in word]
    assert not shown


async def confirm(peer: ScriptedPeer) -> None:
    await peer.receive()
    peer.confirm()
