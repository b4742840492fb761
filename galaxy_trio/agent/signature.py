"""A function's parameters, read from its annotations to check a command's parameters against."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast, get_type_hints

from galaxy_trio._codec.converters import make_closed_converter
from galaxy_trio._codec.strict_types import Mismatch, check_members, shorten, strict_hook
from galaxy_trio.agent.docstring import read_docstring
from galaxy_trio.agent.json_schema import NO_DEFAULT, Member, schema_of, schema_of_members, schema_of_result
from galaxy_trio.agent.tool_description import ToolDescription
from galaxy_trio.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio._codec.strict_types import Structure
    from galaxy_trio.messages import JSON

    # A check and its type.
    _Check = tuple[Structure, object]

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_converter = make_closed_converter()


class Signature:
    """The parameters and the result of a tool's function. Annotations are read once.

    Checks are strict: neither ``"5"`` nor ``true`` is an integer.

    Args:
        function: The tool's function.
        name: The tool's name, for error messages.

    Raises:
        ConfigError: A parameter is positional-only, or its annotation cannot be read or checked.
    """

    def __init__(self, function: Callable[..., object], name: str) -> None:
        self._tool_name = name
        self._checks: dict[str, _Check] = {}
        self._required: dict[str, str] = {}
        self._others: _Check | None = None
        self._members: list[Member] = []
        self._others_annotation: object = None
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the parameters of tool {name!r} cannot be read: {error}") from error
        self._function = _innermost(function)
        namespace = _globals_of(self._function)
        self._result = _result_of(signature, namespace)
        for parameter in signature.parameters.values():
            annotation, check = self._check_for(parameter, namespace)
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._others, self._others_annotation = check, annotation
            elif parameter.kind in _NAMED:
                is_required = parameter.default is inspect.Parameter.empty
                default = NO_DEFAULT if is_required else parameter.default
                self._members.append(Member(parameter.name, annotation, default, is_required))
                self._checks[parameter.name] = check
                if is_required:
                    self._required[parameter.name] = _shown(parameter.annotation)
            else:
                raise ConfigError(
                    f"parameter {parameter.name!r} of tool {name!r} cannot be given by name, as commands give all parameters"
                )

    def _check_for(self, parameter: inspect.Parameter, namespace: dict[str, object]) -> tuple[object, _Check]:
        """Return the resolved annotation, and its check."""
        try:
            annotation = _resolve(parameter.name, parameter.annotation, namespace, include_extras=True)
            wanted = _resolve(parameter.name, parameter.annotation, namespace)
            return annotation, (strict_hook(wanted, _converter), wanted)
        except Exception as error:
            # Any exception: an annotation is code.
            raise ConfigError(
                f"the annotation of parameter {parameter.name!r} of tool {self._tool_name!r} cannot be used: "
                f"{type(error).__name__}: {error}"
            ) from error

    def describe(self) -> ToolDescription:
        """Describe the function: its docstring, and the schemas of its parameters and its result."""
        documented = read_docstring(_documentation_of(self._function))
        parameters = schema_of_members(self._members, documented.parameters)
        if self._others is not None:
            parameters["additionalProperties"] = schema_of(self._others_annotation)
        return ToolDescription(
            text=documented.text,
            input_schema=parameters,
            output_schema=schema_of_result(self._result, documented.result),
        )

    def check(self, given: dict[str, JSON]) -> dict[str, object]:
        """Convert a command's parameters to the function's arguments.

        Raises:
            ToolError: A parameter is missing, unknown or of the wrong type; the text names it and what was expected.
        """
        if self._others is None:
            try:
                check_members(cast("dict[str, object]", given), self._checks)
            except Mismatch as mismatch:
                raise self._wrong(mismatch) from None
        for name, expected in self._required.items():
            if name not in given:
                raise self._wrong(f"{name} is missing: expected {expected}")
        return {name: self._check_one(name, value) for name, value in given.items()}

    def _check_one(self, name: str, value: JSON) -> object:
        check, wanted = self._checks.get(name) or cast("_Check", self._others)
        shown = name if name in self._checks else shorten(name)
        try:
            return check(value, wanted)
        except Mismatch as mismatch:
            raise self._wrong(mismatch.within(shown)) from None
        except Exception as error:
            # The tool's own class may refuse a value with any exception.
            raise self._wrong(f"{shown}: {type(error).__name__}: {error}") from error

    def _wrong(self, problem: object) -> ToolError:
        return ToolError(f"wrong parameters for tool {self._tool_name!r}: {problem}")


def _shown(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return "any value"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _resolve(name: str, annotation: object, namespace: dict[str, object], *, include_extras: bool = False) -> object:
    """Resolve an annotation, which may be a text; without its `Annotated`, unless they are included."""
    if annotation is inspect.Parameter.empty:
        return object
    # One at a time, so that an error can name the parameter.
    holder = SimpleNamespace(__annotations__={name: annotation})
    resolved: object = get_type_hints(holder, namespace, include_extras=include_extras)[name]
    return resolved


def _result_of(signature: inspect.Signature, namespace: dict[str, object]) -> object:
    """The annotation of the result; `object` if it cannot be resolved, because it may be undefined at run time."""
    try:
        return _resolve("return", signature.return_annotation, namespace, include_extras=True)
    except Exception:  # noqa: BLE001  # an annotation is code
        return object


def _innermost(function: object) -> object:
    """The function behind partial functions, decorators and methods."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    function = inspect.unwrap(cast("Callable[..., object]", function))
    return cast("object", getattr(function, "__func__", function))


def _globals_of(function: object) -> dict[str, object]:
    """The global names of the module that defines a function, to resolve its annotations."""
    if not hasattr(function, "__globals__"):
        function = type(function).__call__
    return cast("dict[str, object]", getattr(function, "__globals__", {}))


def _documentation_of(function: object) -> str | None:
    if isinstance(function, type) or inspect.isroutine(function):
        return inspect.getdoc(function)
    kind = type(function)
    return kind.__call__.__doc__ or inspect.getdoc(kind)
