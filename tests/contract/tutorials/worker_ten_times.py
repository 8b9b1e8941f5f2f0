# ruff: noqa
# fmt: off
# The worker of another tutorial, as it stands there but for address, port and key.
import time, sys, queue
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
for i in range(10):
    try:
        n = task.get(timeout=1)
        print('run task %d * %d...' % (n, n))
        r = '%d * %d = %d' % (n, n, n*n)
        time.sleep(1)
        result.put(r)
    except queue.Empty:
        print('task queue is empty.')
print('worker exit.')
