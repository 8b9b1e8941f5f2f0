# ruff: noqa
# fmt: off
# The server of the standard library's documentation, as it stands there but for the import, address and key.
import sys
from queue import Queue
from taskyard.managers import BaseManager

queue = Queue()
queue.put('put before the start')

class QueueManager(BaseManager): pass

QueueManager.register('get_queue', callable=lambda:queue)
m = QueueManager(address=(sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('utf-8'))
s = m.get_server()
print('address', s.address[1])
s.serve_forever()
