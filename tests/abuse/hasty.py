"""`python -m hasty`: a master as it is, that waits three seconds for the rest of a frame and not thirty."""

import sys

PART_SECONDS = 3.0

if __name__ == "__main__":
    from taskyard_master import __main__ as master
    from taskyard_master import connection

    connection.PART_SECONDS = PART_SECONDS
    sys.exit(master.main())
