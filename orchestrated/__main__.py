"""`python -m orchestrated [SERVICE]`: the whole mode, or one of its services; `--help` tells more."""

import sys

from common.process import main
from orchestrated import MODE
from orchestrated.orchestrator import SAGAS

if __name__ == "__main__":
    sys.exit(main(MODE, sys.argv[1:], SAGAS))
