"""From inputs to payloads, as fast as they come and never more than a chunk ahead."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from taskyard import batch
from taskyard.submitter import COUNT, Submitter
from taskyard.values import call, dumps, dumps_many

_FIRST = 64  # tasks pickled before the first chunk leaves
_AT_HAND = (list, tuple, range, set, frozenset, dict)  # nothing to wait for between one and the next


def feed(submitter: Submitter, inputs: Iterable[Any], calls: bool, limit: int) -> None:
    """Put all inputs, those excepted that the job has already; with `calls` each is (args, kwargs).

    `limit` is the most bytes that one may take. Raises what `inputs` raises, PayloadError, and the
    error of the submission.
    """
    if submitter.next:
        inputs = islice(inputs, submitter.next, None)
    elif isinstance(inputs, _AT_HAND) and not calls:
        _feed_at_hand(submitter, inputs, limit)
        return
    put = submitter.put
    if calls:
        for args, kwargs in inputs:
            put(call(tuple(args), dict(kwargs), limit))
    else:
        for value in inputs:
            put(dumps(value, limit))


def _feed_at_hand(submitter: Submitter, inputs: Iterable[Any], limit: int) -> None:
    """Many at a time: few at first, so that work begins, then what a chunk is likely to hold."""
    rest, size = iter(inputs), _FIRST
    while found := list(islice(rest, size)):
        payloads = dumps_many(found, limit)
        submitter.extend(payloads)
        mean = sum(map(len, payloads)) // len(payloads) + 1
        size = max(1, min(8 * size, COUNT, batch.MAX_BYTES // mean))
