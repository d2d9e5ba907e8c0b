"""`python -m compare.bench` is `python -m compare bench`."""

from __future__ import annotations

import sys

from common.garbage import collect_seldom
from compare.cli import main

if __name__ == "__main__":
    collect_seldom()
    sys.argv.insert(1, "bench")
    sys.exit(main())
