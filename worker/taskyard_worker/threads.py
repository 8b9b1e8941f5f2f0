"""Work that blocks, in a thread that nobody waits for when the process ends."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> "asyncio.Future[T]":
    """Call the function in a daemon thread of its own; its result or error comes back to this loop.

    Unlike those of an executor, such a thread does not hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
            tell(partial(future.set_exception, error))
        else:
            tell(partial(future.set_result, result))

    def tell(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if future.done() else outcome())

    threading.Thread(target=run, daemon=True).start()
    return future
