"""`python -m taskyard_ctl` is the command `taskyard`."""

import sys

from taskyard_ctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
