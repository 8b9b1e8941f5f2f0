"""The tutorials' stand-in for real work: sleep for a random time and say how long it took.

    taskyard submit sleeps:nap --range 0:10 --wait

Shows how workers share tasks of uneven length.
"""

import random
import time

LONGEST = 3.0  # seconds


def nap(n: int) -> tuple[int, float]:
    """Sleep a random time of up to n seconds, three at most; returns n and the seconds slept."""
    seconds = round(random.uniform(0.0, min(max(float(n), 0.0), LONGEST)), 3)
    time.sleep(seconds)
    return n, seconds
