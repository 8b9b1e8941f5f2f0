"""Memory that a flood of large replies took goes back to the system when it is over.

With glibc only; another C library has its own ways.
"""

import asyncio
import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt(3)
TRIM_SECONDS = 5.0


def keep_small() -> None:
    """Have large blocks given back at once.

    Left to itself glibc takes them from its heap after a while, where one small block above them keeps all.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 20)
        mallopt(_TRIM_THRESHOLD, 16 << 20)


async def trim_now_and_then() -> None:
    """Give back what is free between small blocks: takes a millisecond where there is little."""
    with contextlib.suppress(OSError, AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            trim(1 << 20)
