"""Public names for exported objects: tracebacks, `repr` and the documentation show where an object is imported from."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, cast

import attrs

_PUBLIC_MODULES: Final = {"galaxy_trio.errors", "galaxy_trio.events", "galaxy_trio.messages"}


def set_module(namespace: dict[str, object]) -> None:
    """Set `__module__` of the classes and functions that a package exports to that package.

    Args:
        namespace: The package's `globals()`, with its `__all__`.
    """
    package = cast("str", namespace["__name__"])
    for name in cast("list[str]", namespace["__all__"]):
        exported = namespace.get(name)
        module = getattr(exported, "__module__", None)
        if module is None or module in _PUBLIC_MODULES or not module.startswith("galaxy_trio"):
            continue
        if isinstance(exported, type) and attrs.has(exported):
            # Annotations are evaluated in the module that `__module__` names, unless they have been before.
            with suppress(NameError):
                attrs.resolve_types(exported)
        exported.__module__ = package  # pyright: ignore[reportAttributeAccessIssue]
