"""The program ``galaxy-trio``, also run as ``python -m galaxy_trio``."""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich")


def main() -> int:
    """Run the command line and return its exit status."""
    try:
        from galaxy_trio._cli.main import run_command_line  # noqa: PLC0415  # the extra "cli" may not be installed
        from galaxy_trio._cli.terminal import print_traceback  # noqa: PLC0415  # the same
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write('the command line needs click and rich: pip install "galaxy_trio[cli]"\n')
        return 2
    except KeyboardInterrupt:
        return 130
    sys.excepthook = print_traceback
    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
