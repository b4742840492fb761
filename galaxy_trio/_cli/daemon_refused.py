"""The refusal of a request by the daemon."""

from __future__ import annotations

from galaxy_trio.errors import RequestRejected


class DaemonRefused(RequestRejected):
    """The daemon refused a request.

    Attributes:
        status: The HTTP status of its response.
    """

    def __init__(self, why: str, status: int, hint: str = "") -> None:
        super().__init__(f"the daemon refused: {why}{hint}", words=why)
        self.status: int = status
