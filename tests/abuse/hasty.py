"""`python -m hasty`: a master that waits three seconds for the rest of a frame, or for a peer to read."""

import sys

PART_SECONDS = READ_SECONDS = 3.0

if __name__ == "__main__":
    from taskyard_master import __main__ as master
    from taskyard_master import connection

    connection.PART_SECONDS, connection.READ_SECONDS = PART_SECONDS, READ_SECONDS
    sys.exit(master.main())
