# ruff: noqa
# fmt: off
# A tutorial's master as it stands there, but for the import, address, port and key: puts ten numbers and
# waits for ten results.
import random, sys, queue
from taskyard.managers import BaseManager

task_queue = queue.Queue()
result_queue = queue.Queue()

class QueueManager(BaseManager):
    pass

QueueManager.register('get_task_queue', callable=lambda: task_queue)
QueueManager.register('get_result_queue', callable=lambda: result_queue)
manager = QueueManager(address=(sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('utf-8'))
manager.start()
print('address', manager.address[1])
task = manager.get_task_queue()
result = manager.get_result_queue()
for i in range(10):
    n = random.randint(0, 10000)
    print('Put task %d...' % n)
    task.put(n)
print('Try get results...')
for i in range(10):
    r = result.get(timeout=30)
    print('Result: %s' % r)
manager.shutdown()
print('master exit.')
