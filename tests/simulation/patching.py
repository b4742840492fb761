"""Patches of the package that a mutation applies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeAlias

Mutation: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Returns a context manager that breaks the package in its block."""


def both(*patches: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """Apply several patches together."""
    stack = ExitStack()
    for patch in patches:
        stack.enter_context(patch)
    return stack
