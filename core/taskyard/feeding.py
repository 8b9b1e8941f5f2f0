"""From inputs to payloads, as fast as they come and never more than a chunk ahead."""

import time
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from taskyard import batch
from taskyard.submitter import COUNT, Submitter
from taskyard.values import call, dumps, dumps_many

_FIRST = 64  # tasks pickled before the first chunk leaves
_AT_HAND = (list, tuple, range, set, frozenset, dict)  # nothing to wait for between one and the next
_SLOW = 0.005  # seconds that another collection may take for what is asked of it at once
_MOST = 1000  # and how much that is at most


def feed(submitter: Submitter, inputs: Iterable[Any], calls: bool, limit: int) -> None:
    """Put all inputs, those excepted that the job has already; with `calls` each is (args, kwargs).

    `limit` is the most bytes that one may take. Raises what `inputs` raises, PayloadError, and the
    error of the submission.
    """
    if submitter.next:
        inputs = islice(inputs, submitter.next, None)
    elif isinstance(inputs, Collection) and not calls:
        _feed_collection(submitter, inputs, limit)
        return
    put = submitter.put
    if calls:
        for args, kwargs in inputs:
            put(call(tuple(args), dict(kwargs), limit))
    else:
        for value in inputs:
            put(dumps(value, limit))


def _feed_collection(submitter: Submitter, inputs: Collection[Any], limit: int) -> None:
    """Many at a time: few at first, so that work begins, then what a chunk is likely to hold.

    A collection may read each item from somewhere slow. One that does is asked for less again.
    """
    rest = iter(inputs)
    size, most = (_FIRST, COUNT) if isinstance(inputs, _AT_HAND) else (1, _MOST)
    while True:
        began = time.monotonic()
        found = list(islice(rest, size))
        quick = time.monotonic() - began < _SLOW
        if not found:
            return
        payloads = dumps_many(found, limit)
        submitter.extend(payloads)
        mean = sum(map(len, payloads)) // len(payloads) + 1
        size = max(1, min(8 * size, most, batch.MAX_BYTES // mean)) if quick else max(1, size // 8)
