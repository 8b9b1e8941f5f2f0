# ruff: noqa
# fmt: off
# The task-giving half of a tutorial's master, connected to a manager that runs elsewhere.
import random
import sys
import time
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
    print('put task %d ...' % n)
    task.put(n)

print('try get results...')
while not result.full():
    time.sleep(0.1)

for i in range(result.qsize()):
    ans = result.get()
    print('task %d is finish , runtime:%d s' % ans)

print('master exit.')
