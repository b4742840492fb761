"""The schemas of tools are made of the annotations that their parameters are checked against."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Optional, cast

import attrs
import pytest
from hypothesis import given

from galaxy_trio.agent import tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON
from tests.agent.support.annotations import Level, Mode, Picky, Point, Region, Tree, make_echo
from tests.agent.test_signature import _ANNOTATIONS, _VALUES


def schema_of(annotation: object) -> dict[str, Any]:
    """The schema of a parameter with this annotation, without its title."""
    schema = cast("Any", make_echo(annotation).description.input_schema)
    assert schema["required"] == ["value"]
    parameter = schema["properties"]["value"]
    assert parameter.pop("title") == "Value"
    return cast("dict[str, Any]", parameter)


POINT = {
    "type": "object",
    "properties": {
        "x": {"type": "integer", "title": "X"},
        "y": {"type": "number", "title": "Y", "default": 0.0},
    },
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (list, {"type": "array"}),
        (dict, {"type": "object"}),
        (Any, {}),
        (object, {}),
        (JSON, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list[JSON], {"type": "array", "items": {}}),
        (dict[str, list[str]], {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}),
        (dict[str, Any], {"type": "object"}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (str | float | None, {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
        (Literal[1], {"enum": [1], "type": "integer"}),
        (Literal[1, "a", True, None], {"enum": [1, "a", True, None]}),  # noqa: PYI061
        (Mode, {"enum": ["fast", "slow"], "type": "string"}),
        (Level, {"enum": [1, 2, None]}),
        (Mode | None, {"anyOf": [{"enum": ["fast", "slow"], "type": "string"}, {"type": "null"}]}),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[int, [], 5, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[int, []], {"type": "integer"}),
        (list[Annotated[int, "One."]], {"type": "array", "items": {"type": "integer", "description": "One."}}),
        (Point, POINT),
        (list[Point], {"type": "array", "items": POINT}),
    ],
    ids=str,
)  # fmt: skip
def test_schema_describes_the_annotation(annotation: object, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


def test_class_has_the_fields_that_its_init_takes() -> None:
    region = schema_of(Region)
    assert list(region["properties"]) == ["corner", "extra", "marks"]
    assert region["required"] == ["corner"]
    assert region["properties"]["corner"] == {**POINT, "title": "Corner"}
    # A factory may have side effects.
    assert region["properties"]["marks"] == {"type": "array", "items": POINT, "title": "Marks"}
    assert schema_of(Picky)["properties"] == {"text": {"type": "string", "title": "Text"}}


class _Doc:
    documentation = "From an object."


class _Field:
    description = "From a field."
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("carrier", [_Doc(), _Field()])
def test_description_may_be_an_annotations_object(carrier: object) -> None:
    annotation = Annotated[int, carrier]
    assert schema_of(annotation) == {
        "type": "integer",
        "description": getattr(carrier, "description", None) or _Doc.documentation,
    }


def test_description_in_an_annotation_precedes_that_of_the_docstring() -> None:
    @tool
    def press(key: Annotated[str, "near"], count: Annotated[int, 5] = 1) -> None:
        """Press.

        Args:
            key: far
            count: How often.
        """
        del key, count

    properties = cast("Any", press.description.input_schema)["properties"]
    assert [properties[name]["description"] for name in ("key", "count")] == ["near", "How often."]


def test_defaults_are_written_as_json_and_left_out_if_they_cannot_be() -> None:
    marks = [Point(1)]

    @tool
    def draw(
        mode: Mode = Mode.FAST,
        at: Point = Point(1),  # noqa: B008
        marks: list[Point] = marks,
        nothing: str | None = None,
        width: float = math.inf,
        anything: object = object(),
    ) -> None:
        del mode, at, marks, nothing, width, anything

    schema = cast("Any", draw.description.input_schema)
    assert "required" not in schema
    defaults = {name: each["default"] for name, each in schema["properties"].items() if "default" in each}
    assert defaults == {"mode": "fast", "at": {"x": 1, "y": 0.0}, "marks": [{"x": 1, "y": 0.0}], "nothing": None}
    marks.clear()
    assert len(defaults["marks"]) == 1


def test_titles_are_made_of_names() -> None:
    @tool
    def draw(line_width: int, _x__y: int) -> None:
        del line_width, _x__y

    properties = cast("Any", draw.description.input_schema)["properties"]
    assert [each["title"] for each in properties.values()] == ["Line Width", "X Y"]


def test_further_parameters_are_described_by_their_annotation() -> None:
    @tool
    def draw(**labels: int) -> None:
        del labels

    @tool
    def write(**labels: Any) -> None:
        del labels

    assert draw.description.input_schema == {
        "type": "object",
        "properties": {},
        "additionalProperties": {"type": "integer"},
    }
    assert cast("Any", write.description.input_schema)["additionalProperties"] == {}


def _wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    result = {**schema, "title": "Result"}
    return {"type": "object", "properties": {"result": result}, "required": ["result"]}


def _result_schema(annotation: object, docstring: str | None = None) -> dict[str, Any] | None:
    def give() -> object:
        raise AssertionError("not reached")

    give.__annotations__["return"] = annotation
    give.__doc__ = docstring
    return cast("dict[str, Any] | None", tool(give).description.output_schema)


@attrs.frozen
class _Mapped:
    inner: Annotated[int, "Inside."]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, _wrapped({"type": "string"})),
        (list[int], _wrapped({"type": "array", "items": {"type": "integer"}})),
        (str | None, _wrapped({"anyOf": [{"type": "string"}, {"type": "null"}]})),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Point, POINT),
        (None, None),
        (Any, None),
        (JSON, None),
        (object, None),
        (tuple[int, str], None),
        (Tree, None),
        ("Undefined", None),
        ("1 / 0", None),
    ],
    ids=str,
)
def test_schema_of_the_result_is_that_of_an_object(annotation: object, schema: dict[str, Any] | None) -> None:
    assert _result_schema(annotation) == schema


def test_result_that_is_an_object_is_described_as_a_whole() -> None:
    assert _result_schema(dict[str, int], "Count.\n\nReturns:\n    The counts.") == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "The counts.",
    }


def test_fields_of_classes_may_be_annotated_too() -> None:
    assert schema_of(_Mapped)["properties"]["inner"]["description"] == "Inside."


async def test_annotated_fields_are_checked_by_their_type() -> None:
    made = make_echo(_Mapped)
    assert await made.call({"value": {"inner": 5}}) == _Mapped(5)
    with pytest.raises(ToolError, match=r"value.inner: expected an integer, got the string 'x'"):
        await made.call({"value": {"inner": "x"}})


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def _accepts(schema: dict[str, Any], value: object) -> bool:
    """Whether a schema of the parts that the test makes accepts a value."""
    if "anyOf" in schema:
        return any(_accepts(each, value) for each in schema["anyOf"])
    if type(value) not in _TYPES[schema["type"]]:
        return False
    inner = cast("dict[str, Any]", schema.get("items") or schema.get("additionalProperties"))
    if type(value) is list:
        return all(_accepts(inner, each) for each in cast("list[object]", value))
    if type(value) is dict:
        return all(_accepts(inner, each) for each in cast("dict[str, object]", value).values())
    return True


@given(_ANNOTATIONS, _VALUES)
def test_schema_accepts_what_the_signature_accepts(annotation: object, value: JSON) -> None:
    made = make_echo(annotation)
    schema = cast("Any", made.description.input_schema)["properties"]["value"]
    try:
        made._signature.check({"value": value})
    except ToolError:
        assert not _accepts(schema, value)
    else:
        assert _accepts(schema, value)
