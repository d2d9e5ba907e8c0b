"""`python -m compare.bench` is `python -m compare bench`."""

from __future__ import annotations

import sys

from compare.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "bench")
    sys.exit(main())
