"""How the original's agents read the result of ``list_tools``: the fields that they require, and the prompt that they make of it."""

from __future__ import annotations

from typing import Any, cast

_REQUIRED = ("tool_key", "tool_name", "namespace", "tool_type")
_TEXTS = ("title", "description")
_OBJECTS = ("input_schema", "output_schema", "meta", "annotations")


def read_as_the_original(result: object) -> list[dict[str, Any]]:
    """Check each tool as the original's class of tools does, and return them."""
    assert isinstance(result, list)
    tools = cast("list[dict[str, Any]]", result)
    for listed in tools:
        assert set(listed) == {*_REQUIRED, *_TEXTS, *_OBJECTS}
        assert all(type(listed[name]) is str for name in _REQUIRED)
        assert all(listed[name] is None or type(listed[name]) is str for name in _TEXTS)
        assert all(listed[name] is None or type(listed[name]) is dict for name in _OBJECTS)
    return tools


def prompt_of(listed: dict[str, Any]) -> str:
    """The lines about a tool in a prompt, read from the same members as in the original."""
    properties = _members(listed["input_schema"]).get("properties", {})
    parameters = [
        f"- {name} ({each.get('type', 'unknown')}, {'optional' if 'default' in each else 'required'}): "
        f"{each.get('description', '')} Default: {each.get('default', 'N/A')}"
        for name, each in properties.items()
    ]
    result = _members(listed["output_schema"]).get("description", "")
    return "\n".join(
        [f"{listed['tool_name']}: {(listed['description'] or '').strip()}", *parameters, f"Returns: {result}"]
    )


def _members(schema: Any) -> dict[str, Any]:
    return schema or {}
