"""`python -m compare`, also installed as `saga-lab`."""

from __future__ import annotations

import sys

from common.garbage import collect_seldom
from compare.cli import main

if __name__ == "__main__":
    collect_seldom()
    sys.exit(main())
