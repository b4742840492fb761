"""Ctrl-C while the program ``galaxy-trio`` imports its modules: it ends with status 130, without a traceback.

Importing takes most of the time of a short command, and a `KeyboardInterrupt` in an import is a traceback of any library, or is lost
where Python ignores exceptions. Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys


def is_program() -> bool:
    """Whether this process is the program: its script, or ``python -m``, which imports the package before it runs a module."""
    name = sys.argv[0] if getattr(sys, "argv", None) else ""
    return name == "-m" or os.path.basename(name).partition(".")[0] == "galaxy-trio"


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end the process immediately, with status 130, unless it is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_ctrl_c() -> None:
    """Undo `exit_on_ctrl_c`."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, _: object) -> None:
    os._exit(128 + number)
