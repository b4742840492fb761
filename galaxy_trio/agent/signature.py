"""A function's parameters, read from its annotations to check a command's parameters against."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast, get_type_hints

from galaxy_trio._codec.converters import make_closed_converter
from galaxy_trio._codec.strict_types import Mismatch, check_members, shorten, strict_hook
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
    """The parameters of a tool's function. Annotations are read once. Checks are strict: neither ``"5"`` nor ``true`` is an integer.

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
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the parameters of tool {name!r} cannot be read: {error}") from error
        namespace = _globals_of(function)
        for parameter in parameters:
            check = self._check_for(parameter, namespace)
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._others = check
            elif parameter.kind in _NAMED:
                self._checks[parameter.name] = check
                if parameter.default is inspect.Parameter.empty:
                    self._required[parameter.name] = _shown(parameter.annotation)
            else:
                raise ConfigError(
                    f"parameter {parameter.name!r} of tool {name!r} cannot be given by name, as commands give all parameters"
                )

    def _check_for(self, parameter: inspect.Parameter, namespace: dict[str, object]) -> _Check:
        annotation: object = parameter.annotation
        if annotation is inspect.Parameter.empty:
            annotation = object
        holder = SimpleNamespace(__annotations__={parameter.name: annotation})
        try:
            # One at a time, so that the error can name the parameter; the result's annotation may be undefined at run time.
            wanted: object = get_type_hints(holder, namespace)[parameter.name]
            return strict_hook(wanted, _converter), wanted
        except Exception as error:
            # Any exception: an annotation is code.
            raise ConfigError(
                f"the annotation of parameter {parameter.name!r} of tool {self._tool_name!r} cannot be used: "
                f"{type(error).__name__}: {error}"
            ) from error

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


def _globals_of(function: object) -> dict[str, object]:
    """The global names of the module that defines a function, to resolve its annotations."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    function = inspect.unwrap(cast("Callable[..., object]", function))
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__globals__"):
        function = type(function).__call__
    return cast("dict[str, object]", getattr(function, "__globals__", {}))
