"""The interface between a link and the role that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from galaxy_trio.errors import InvalidMessage

In_contra = TypeVar("In_contra", contravariant=True)


class Receiver(Protocol[In_contra]):
    """The destination of a link's messages. The connection's only receiver task calls it, so it must neither block nor raise."""

    def received(self, message: In_contra) -> None:
        """Process a message."""

    def received_invalid(self, invalid: InvalidMessage) -> None:
        """Process a broken message. The connection continues."""

    def ended(self, error: Callable[[], Exception]) -> None:
        """Process the end of the connection, whatever its reason. Called once.

        Args:
            error: Makes a fresh exception to raise, with each call.
        """
