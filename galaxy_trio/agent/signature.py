"""What a function takes, read from its annotations, and checked against what a command gives."""

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

    # A check, and the type that it is for.
    _Check = tuple[Structure, object]

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_converter = make_closed_converter()


class Parameters:
    """The parameters of a function. Reading them is done once, checking is strict: ``"5"`` is no integer, and neither is ``true``.

    Args:
        function: Whose they are.
        name: The function's, for error messages.

    Raises:
        ConfigError: A parameter cannot be given by name, or its annotation cannot be read or checked.
    """

    def __init__(self, function: Callable[..., object], name: str) -> None:
        self._tool_name = name
        self._checks: dict[str, _Check] = {}
        self._required: dict[str, str] = {}
        self._others: _Check | None = None
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"tool {name!r} is no function whose parameters can be read: {error}") from error
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
                    f"parameter {parameter.name!r} of tool {name!r} cannot be given by name: commands give all parameters so"
                )

    def _check_for(self, parameter: inspect.Parameter, namespace: dict[str, object]) -> _Check:
        annotation: object = parameter.annotation
        if annotation is inspect.Parameter.empty:
            annotation = object
        holder = SimpleNamespace(__annotations__={parameter.name: annotation})
        try:
            # One by one, so that the error can name it; the annotation of the result need not be known at run time.
            wanted: object = get_type_hints(holder, namespace)[parameter.name]
            return strict_hook(wanted, _converter), wanted
        except Exception as error:
            # Any: an annotation is code.
            raise ConfigError(
                f"the annotation of parameter {parameter.name!r} of tool {self._tool_name!r} cannot be used: "
                f"{type(error).__name__}: {error}"
            ) from error

    def check(self, given: dict[str, JSON]) -> dict[str, object]:
        """What to call the function with.

        Raises:
            ToolError: Something is missing, unknown, or not of its type: names it, and says what was expected.
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
            # A class of the tool's own refuses the value, in whatever way.
            raise self._wrong(f"{shown}: {type(error).__name__}: {error}") from error

    def _wrong(self, problem: object) -> ToolError:
        return ToolError(f"wrong parameters for tool {self._tool_name!r}: {problem}")


def _shown(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return "any value"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _globals_of(function: object) -> dict[str, object]:
    """The names that its annotations are read with: those of the module in which it was written."""
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    function = inspect.unwrap(cast("Callable[..., object]", function))
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__globals__"):
        function = type(function).__call__
    return cast("dict[str, object]", getattr(function, "__globals__", {}))
