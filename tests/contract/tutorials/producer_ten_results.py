# ruff: noqa
# fmt: off
# A producer: puts ten numbers and waits for ten results.
import random, sys
from multiprocessing.managers import BaseManager

class QueueManager(BaseManager):
    pass

QueueManager.register('get_task')
QueueManager.register('get_result')

server_addr, port, authkey = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode('utf-8')
manager = QueueManager(address=(server_addr, port), authkey=authkey)
manager.connect()
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
print('master exit.')
