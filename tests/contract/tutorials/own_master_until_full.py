# ruff: noqa
# fmt: off
# Another tutorial's master: bounded queues, and it waits until the one for results is full.
import random
import sys
import time
from multiprocessing.managers import BaseManager
from queue import Queue

task_queue = Queue(10)
result_queue = Queue(10)


class QueueManager(BaseManager):
    pass


def get_task_queue():
    return task_queue


def get_result_queue():
    return result_queue


if __name__ == '__main__':
    QueueManager.register('get_task', callable=get_task_queue)
    QueueManager.register('get_result', callable=get_result_queue)
    manager = QueueManager(address=('127.0.0.1', int(sys.argv[2])), authkey=sys.argv[3].encode('utf-8'))
    manager.start()
    task = manager.get_task()
    result = manager.get_result()
    for i in range(10):
        n = random.randint(0, 10)
        print('put task %d ...' % n)
        task.put(n)
    print('try get results...')
    while not result.full():
        time.sleep(0.1)
    for i in range(result.qsize()):
        ans = result.get()
        print('task %d is finish , runtime:%d s' % ans)
    manager.shutdown()
    print('master exit.')
