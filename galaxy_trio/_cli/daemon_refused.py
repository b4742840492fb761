"""The refusal of a request by the daemon."""

from __future__ import annotations

from galaxy_trio.errors import RequestRejected


class DaemonRefused(RequestRejected):
    """The daemon, or a proxy before it, refused a request.

    Attributes:
        status: The HTTP status of the response.
    """

    def __init__(self, message: str, status: int, words: str = "") -> None:
        super().__init__(message, words=words)
        self.status: int = status
