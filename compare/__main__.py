"""`python -m compare`, also installed as `saga-lab`."""

from __future__ import annotations

import sys

from common.command_line import INTERRUPTED


def main() -> int:
    """Run the command line and return its exit code.

    All else is imported here, which takes half a second, and Ctrl-C is to end that without a traceback, too.
    """
    try:
        from common.garbage import collect_seldom  # noqa: PLC0415 - see above
        from compare import cli  # noqa: PLC0415 - see above

        collect_seldom()
        return cli.main()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
