"""`python -m choreographed [SERVICE]`: the whole mode, or one of its services; `--help` tells more."""

import sys

from choreographed import MODE
from common.process import main

if __name__ == "__main__":
    sys.exit(main(MODE, sys.argv[1:]))
