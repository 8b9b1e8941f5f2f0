# ruff: noqa
# fmt: off
# The master of another tutorial, as it stands there but for the import, address, port and key.
import queue
import sys
import time
from multiprocessing import freeze_support
from taskyard.managers import BaseManager

task_number = 10
task_queue = queue.Queue(task_number)
result_queue = queue.Queue(task_number)


def gettask():
    return task_queue


def getresult():
    return result_queue


def test():
    BaseManager.register('get_task', callable=gettask)
    BaseManager.register('get_result', callable=getresult)
    manager = BaseManager(address=(sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode('utf-8'))
    manager.start()
    print('address', manager.address[1])
    try:
        task = manager.get_task()
        result = manager.get_result()
        for i in range(task_number):
            print('put task %d ...' % i)
            task.put(i)
        while not result.full():
            time.sleep(0.05)
        for i in range(result.qsize()):
            ans = result.get()
            print('task %d is finish , runtime:%d s' % ans)
    finally:
        manager.shutdown()


if __name__ == '__main__':
    freeze_support()
    test()
