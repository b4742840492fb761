"""Why the daemon refuses tasks."""

from __future__ import annotations


class DaemonBusy(Exception):
    """The daemon accepts no tasks at the moment; the message gives the reason."""


class Impossible(Exception):
    """No device can ever run a task; the message names what is missing."""
