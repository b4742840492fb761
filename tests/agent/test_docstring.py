"""Docstrings become the descriptions of tools, parameters and results."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest

from galaxy_trio.agent import tool

if TYPE_CHECKING:
    from collections.abc import Callable


def google(at: int, to: int = 0, **labels: int) -> str:
    """Draw a line.

    It may be long.

    Args:
        at: Where
            to begin.
        to (int, optional): Where to end: a place.

        **labels: More
          words.

    Returns:
        str: The line.

    Raises:
        ValueError: The line is too long.
    """
    return f"{at}{to}{labels}"


def numpy(at: int, to: int = 0, **labels: int) -> str:
    """Draw a line.

    It may be long.

    Parameters
    ----------
    at, to : int
        Where
        to begin.
    **labels
        More words.

    Returns
    -------
    str
        The line.

    Raises
    ------
    ValueError
        The line is too long.
    """
    return f"{at}{to}{labels}"


def sphinx(at: int, to: int = 0, **labels: int) -> str:
    """Draw a line.

    It may be long.

    :param at: Where
        to begin.
    :type at: int
    :param int to: Where to end: a place.
    :param labels: More words.
    :returns: The line.
    :rtype: str
    :raises ValueError: The line is too long.
    """
    return f"{at}{to}{labels}"


def of(function: Callable[..., object]) -> tuple[str | None, dict[str, str | None], str | None]:
    """A function's description: its text, those of its parameters, and that of its result."""
    described = tool(function, name="f").description
    schema, result = cast("Any", described.input_schema), cast("Any", described.output_schema)
    parameters = {name: each.get("description") for name, each in schema["properties"].items()}
    return described.text, parameters, None if result is None else result["properties"]["result"].get("description")


@pytest.mark.parametrize(
    ("function", "end", "to"),
    [
        (google, "Raises:\n    ValueError: The line is too long.", "Where to end: a place."),
        (numpy, "Raises\n------\nValueError\n    The line is too long.", "Where to begin."),
        (sphinx, ":raises ValueError: The line is too long.", "Where to end: a place."),
    ],
    ids=["google", "numpy", "sphinx"],
)
def test_parameters_and_result_are_described_and_the_rest_is_the_text(
    function: Callable[..., object], end: str, to: str
) -> None:
    text = f"Draw a line.\n\nIt may be long.\n\n{end}"
    described, parameters, result = of(function)
    assert " ".join((described or "").split()) == " ".join(text.split())
    assert (parameters, result) == ({"at": "Where to begin.", "to": to}, "The line.")


@pytest.mark.parametrize(
    ("docstring", "text", "parameter", "result"),
    [
        (None, None, None, None),
        ("", None, None, None),
        ("Press a key.", "Press a key.", None, None),
        ("Press.\nArgs: key", "Press.\nArgs: key", None, None),
        ("Press.\n\nArgs:\n    key (str): One of: a, b.", "Press.", "One of: a, b.", None),
        ("Press.\n\nArguments:\n  key: The key.\n\nThen wait.", "Press.\n\nThen wait.", "The key.", None),
        ("Press.\n\nParameters:\n  key: The key.\n  no words", "Press.", "The key.", None),
        ("Press.\n\nReturns:\n    list[str]: Lines.", "Press.", None, "Lines."),
        ("Press.\n\nReturns:\n    Note: Lines.", "Press.", None, "Note: Lines."),
        ("Press.\n\nReturns:\n    The state\n    of it.", "Press.", None, "The state of it."),
        ("Press.\n\nReturns:\n\nEnd.", "Press.\n\nEnd.", None, None),
        ("Press.\n\nReturns\n-------\nThe state.", "Press.", None, "The state."),
        ("Press.\n\nParameters\n----------\nkey : str\n    The key.\n(bad)\n", "Press.", "The key.", None),
        ("Press.\n:param key: The key.\n:return: The state.", "Press.", "The key.", "The state."),
        ("Press.\n:param: nothing\n:see: more", "Press.\n:param: nothing\n:see: more", None, None),
        ("Press.\n\nExample:\n    Args:\n        key: x", "Press.\n\nExample:\n    Args:\n        key: x", None, None),
    ],
)  # fmt: skip
def test_any_docstring_is_read(
    docstring: str | None, text: str | None, parameter: str | None, result: str | None
) -> None:
    def press(key: str) -> str:
        return key

    press.__doc__ = docstring
    assert of(press) == (text, {"key": parameter}, result)


def test_docstring_of_a_class_describes_its_fields() -> None:
    @attrs.frozen
    class Place:
        """A place.

        Attributes:
            x: Pixels.
        """

        x: int
        y: int = 0

    def move(to: object) -> None:
        del to

    move.__annotations__["to"] = Place
    schema = cast("Any", tool(move).description.input_schema)["properties"]["to"]
    assert (schema["description"], schema["title"]) == ("A place.", "To")
    assert schema["properties"]["x"]["description"] == "Pixels."
    assert "description" not in schema["properties"]["y"]


class Robot:
    """A robot."""

    def lift(self, height: int) -> None:
        """Lift the arm."""

    def __call__(self, height: int) -> None:
        """Move."""


class Mute:
    """A mute robot."""

    def __call__(self, height: int) -> None:
        del height


def test_docstring_is_that_of_the_function_behind_others() -> None:
    @wraps(google)
    def wrapped(*args: int, **kwargs: int) -> str:
        return google(*args, **kwargs)

    expected = inspect.cleandoc(google.__doc__ or "").splitlines()[0]
    for function in (wrapped, partial(google, to=1), partial(partial(wrapped, at=1), to=1)):
        assert (of(function)[0] or "").startswith(expected)
    assert of(Robot().lift)[0] == "Lift the arm."
    assert of(Robot())[0] == "Move."
    assert of(Mute())[0] == "A mute robot."
    assert of(Robot)[0] == "A robot."
