"""Memory that a flood of large replies took goes back to the system when it is over.

glibc gives back what lies at the top of its heap, where one small block above them keeps all. To have it take
large blocks from the system one by one would do as well, but costs a page fault for every four KiB of every
payload: half of the event loop's time, where payloads have a megabyte.
"""

import asyncio
import contextlib
import ctypes

TRIM_SECONDS = 5.0


async def trim_now_and_then() -> None:
    """Give back what is free between small blocks: takes a millisecond where there is little.

    With glibc only; another C library has its own ways.
    """
    with contextlib.suppress(OSError, AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            trim(1 << 20)
