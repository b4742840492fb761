"""What the event loop's benchmark asks its peer to send."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import NamedTuple, cast

from .shapes import Shape, Size


class Kind(StrEnum):
    """The first word of a task's request. Any other request gets an end without a result."""

    DELIVERY = "deliver"
    RESULTS = "answer"


class Receiver(StrEnum):
    """The role of the process that is measured."""

    CLIENT = "client"
    SERVER = "server"


class Ending(StrEnum):
    """What is wrong with a message, if anything is."""

    VALID = "valid"
    BROKEN = "broken at its end"
    NOT_UTF8 = "not UTF-8 at its end"
    FRAGMENTS = "in frames of 64 KiB"


class Delivery(NamedTuple):
    """A message to send."""

    receiver: Receiver
    shape: Shape
    size: Size
    ending: Ending
    url: str = ""
    """The server to send it to."""

    def request(self) -> str:
        """The task's request that asks the peer for it."""
        return f"{Kind.DELIVERY} {json.dumps(self)}"

    @classmethod
    def read(cls, arguments: str) -> Delivery:
        """Read what `request` wrote after the first word."""
        receiver, shape, size, ending, url = cast("list[str]", json.loads(arguments))
        return cls(Receiver(receiver), Shape(shape), Size(size), Ending(ending), url)


class Results(NamedTuple):
    """Results to send as a device that answers its first batch of commands."""

    url: str
    number: int

    def request(self) -> str:
        """The task's request that asks the peer for them."""
        return f"{Kind.RESULTS} {json.dumps(self)}"

    @classmethod
    def read(cls, arguments: str) -> Results:
        """Read what `request` wrote after the first word."""
        url, number = cast("tuple[str, int]", json.loads(arguments))
        return cls(url, number)
