# ruff: noqa
# fmt: off
# A tutorial's master: it serves its own queues, gives ten numbers, waits for ten results, and ends.
import random
import sys
import time
import queue
from multiprocessing.managers import BaseManager

task_queue = queue.Queue()
result_queue = queue.Queue()


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task', callable=lambda: task_queue)
QueueManager.register('get_result', callable=lambda: result_queue)

if __name__ == '__main__':
    manager = QueueManager(address=('', int(sys.argv[2])), authkey=sys.argv[3].encode('utf-8'))
    manager.start()
    task = manager.get_task()
    result = manager.get_result()
    for i in range(10):
        n = random.randint(0, 10000)
        print('Put task %d...' % n)
        task.put(n)
    print('Try get results...')
    for i in range(10):
        r = result.get(timeout=10)
        print('Result: %s' % r)
    manager.shutdown()
    print('master exit.')
