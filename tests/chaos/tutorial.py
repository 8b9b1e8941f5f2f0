"""The tutorials' master and worker, as every blog has them, to compare with: `tutorial.py ROLE PORT`."""

import queue
import sys
import time
from multiprocessing.managers import BaseManager

KEY = b"0123456789abcdef-for-tests"
tasks: "queue.Queue[tuple[int, float]]" = queue.Queue()
results: "queue.Queue[int]" = queue.Queue()


class QueueManager(BaseManager):
    pass


def connect(port: int) -> QueueManager:
    QueueManager.register("get_task")
    QueueManager.register("get_result")
    manager = QueueManager(address=("127.0.0.1", port), authkey=KEY)
    manager.connect()
    return manager


def master(port: int) -> None:
    QueueManager.register("get_task", callable=lambda: tasks)
    QueueManager.register("get_result", callable=lambda: results)
    QueueManager(address=("127.0.0.1", port), authkey=KEY).get_server().serve_forever()


def worker(port: int) -> None:
    manager = connect(port)
    task, result = manager.get_task(), manager.get_result()
    while True:
        n, seconds = task.get()
        time.sleep(seconds)
        result.put(n)


if __name__ == "__main__":
    {"master": master, "worker": worker}[sys.argv[1]](int(sys.argv[2]))
