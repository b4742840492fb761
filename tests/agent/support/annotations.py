"""Classes and tools for tests of annotations."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from galaxy_trio.agent import FunctionTool, Tool, tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON  # noqa: TC001  # annotations are resolved at run time

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: TC004  # undefined at run time


class Mode(StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Level(Enum):
    LOW = 1
    HIGH = 2
    OFF = None


class Odd(Enum):
    PAIR = (1, 2)


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@attrs.frozen
class Region:
    corner: Point
    extra: str | None = None
    marks: list[Point] = attrs.field(factory=list[Point])
    area: float = attrs.field(init=False, default=0.0)


@attrs.frozen
class Tree:
    children: list[Tree]


@attrs.frozen
class Picky:
    text: str = attrs.field()

    @text.validator  # pyright: ignore[reportAttributeAccessIssue, reportUntypedFunctionDecorator, reportUnknownMemberType]
    def _check(self, _: object, text: str) -> None:
        if text == "key":
            raise KeyError(text)
        if text:
            raise ValueError("it must\nbe empty")


@attrs.frozen
class Unreadable:
    field: Decimal


def make_echo(annotation: object) -> FunctionTool[..., object]:
    """Make a tool with one parameter of this type that returns it."""

    async def give_back(value: object) -> object:
        await trio.lowlevel.checkpoint()
        return value

    give_back.__annotations__["value"] = annotation
    return tool(give_back)


async def refusal_of(refused: Tool, **parameters: JSON) -> str:
    with pytest.raises(ToolError) as caught:
        await refused.call(parameters)
    beginning = f"wrong parameters for tool {refused.name!r}: "
    assert str(caught.value).startswith(beginning)
    return str(caught.value).removeprefix(beginning)
