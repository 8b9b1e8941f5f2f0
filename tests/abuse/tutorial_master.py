"""`python -m tutorial_master`: queues, a BaseManager, serve_forever, as in every tutorial; for controls."""

import os
import queue
from collections.abc import Callable
from multiprocessing.managers import BaseManager
from typing import Any


def serve(ready: Callable[[], object] = lambda: None) -> None:
    host, _, port = os.environ["TASKYARD_ADDRESS"].rpartition(":")
    task: queue.Queue[Any] = queue.Queue()
    result: queue.Queue[Any] = queue.Queue()
    BaseManager.register("get_task", callable=lambda: task)
    BaseManager.register("get_result", callable=lambda: result)
    manager = BaseManager((host, int(port)), authkey=os.environ["TASKYARD_AUTHKEY"].encode())
    server = manager.get_server()
    ready()
    server.serve_forever()


if __name__ == "__main__":
    serve()
