"""A server in a process that may open few files; prints its port, ends when its input does."""

import logging
import resource
import sys
from pathlib import Path

from serving import serving

FREE = 40

if __name__ == "__main__":
    logging.basicConfig()
    with serving(sys.argv[1]) as served:
        limit = len(list(Path("/proc/self/fd").iterdir())) + FREE
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        sys.stdout.write(f"{served.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
