"""The program ``galaxy-trio``, also run as ``python -m galaxy_trio``."""

from __future__ import annotations

import sys

from galaxy_trio._program_start import exit_on_ctrl_c, raise_on_ctrl_c

_EXTRA = ("click", "rich")


def main() -> int:
    """Run the command line and return its exit status."""
    exit_on_ctrl_c()
    try:
        from galaxy_trio._cli.main import run_command_line  # noqa: PLC0415  # the extra "cli" may not be installed
        from galaxy_trio._cli.terminal import print_traceback  # noqa: PLC0415  # the same
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write('the command line needs click and rich: pip install "galaxy_trio[cli]"\n')
        return 2
    sys.excepthook = print_traceback
    try:
        # From here on, Ctrl-C ends a command in good order.
        raise_on_ctrl_c()
        return run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    finally:
        # Python's own end takes time as well.
        exit_on_ctrl_c()


if __name__ == "__main__":
    sys.exit(main())
