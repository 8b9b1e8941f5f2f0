# ruff: noqa
# fmt: off
# The worker of a tutorial on distributed multiprocessing, as it stands there but for address, port and key.
import random
import sys
import time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register('get_task')
QueueManager.register('get_result')

server_addr, port, authkey = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode('utf-8')
print('Connect to server %s...' % server_addr)
m = QueueManager(address=(server_addr, port), authkey=authkey)
m.connect()
task = m.get_task()
result = m.get_result()

while not task.empty():
    n = task.get(timeout=1)
    print('run task %d' % n)
    sleeptime = random.randint(0, 1)
    time.sleep(sleeptime)
    rt = (n, sleeptime)
    result.put(rt)

print('worker exit.')
