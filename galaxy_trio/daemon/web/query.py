"""Reads the parameters of a request's URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from galaxy_trio._config.reader import MAX_KEY
from galaxy_trio._nearest import did_you_mean_or_known
from galaxy_trio.daemon.web.bodies import BadRequest

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_PAGE: Final = 1_000
"""Maximum tasks or graphs in a page."""


def query_of(request: Request, *known: str) -> dict[str, str]:
    """The parameters of a request's URL, each of which is known and given once.

    Raises:
        BadRequest: One is not known, or is given twice.
    """
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise BadRequest(f"{name[:MAX_KEY]!r} is no parameter here{did_you_mean_or_known(name, known)}")
        if name in query:
            raise BadRequest(f"{name}: is given twice: leave out one")
        query[name] = value
    return query


def page_size(text: str) -> int:
    """The number of entries in a page.

    Raises:
        BadRequest: It is not a whole number from 1 to `MAX_PAGE`.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE)) and 0 < int(text) <= MAX_PAGE):
        raise BadRequest(f"limit: expected a whole number from 1 to {MAX_PAGE}")
    return int(text)
