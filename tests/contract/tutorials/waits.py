# ruff: noqa
# A worker that says when it has a task, and then waits to be killed; with "ghost" it waits in get() itself.
import sys
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register("get_task")
manager = QueueManager(address=(sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode())
manager.connect()
task = manager.get_task()
print("ready")
print("got", task.get())
sys.stdin.readline()
