# ruff: noqa
# Every method of the two queues, as a stdlib client calls them; ends with 0 if all is as in queue.Queue.
import datetime
import queue
import sys
from multiprocessing.managers import BaseManager, RemoteError


class QueueManager(BaseManager):
    pass


NAMES = ("get_task", "get_task_queue", "task_queue", "get_result", "get_result_queue", "result_queue")
for name in NAMES:
    QueueManager.register(name)

manager = QueueManager(address=(sys.argv[1], int(sys.argv[2])), authkey=sys.argv[3].encode())
manager.connect()
task, result = manager.get_task(), manager.get_result()


def raises(kind, call, *args, **kwds):
    try:
        value = call(*args, **kwds)
    except kind as error:
        return str(error)
    raise AssertionError("%r came instead of %s" % (value, kind.__name__))


for q in (task, result):
    assert q.empty() is True and q.full() is False and q.qsize() == 0
    raises(queue.Empty, q.get_nowait)
    raises(queue.Empty, q.get, False)
    raises(queue.Empty, q.get, block=False)
    raises(queue.Empty, q.get, True, 0.01)
    raises(queue.Empty, q.get, timeout=0.01)
    assert "non-negative" in raises(ValueError, q.get, timeout=-1)
    raises(TypeError, q.get, timeout="soon")
    raises(TypeError, q.get, 1, 2, 3)
    raises(TypeError, q.get, colour="red")
    raises(TypeError, q.put)
    raises(TypeError, q.qsize, 1)
    values = [
        0,
        "x",
        None,
        (1, 2),
        [1, [2.5, {"a": b"c"}]],
        {1, 2},
        1 << 100,
        True,
        datetime.date(2024, 2, 29),
    ]
    for value in values:
        assert q.put(value) is None
    assert q.qsize() == len(values) and q.empty() is False
    for value in values:
        got = q.get(timeout=5)
        assert got == value and type(got) is type(value), (got, value)
        if q is task:
            assert q.task_done() is None
    assert q.put(1, False) is None and q.put(2, timeout=5) is None and q.put_nowait(item=3) is None
    assert [q.get() for _ in range(3)] == [1, 2, 3]
    if q is task:
        for _ in range(3):
            task.task_done()
    assert q.join() is None

# All names of a kind are one queue.
manager.task_queue().put("one")
assert manager.get_task_queue().qsize() == 1 and task.get() == "one"
manager.get_result_queue().put("two")
assert manager.result_queue().get() == "two"

raises(RemoteError, task._callmethod, "shutdown")
raises(RemoteError, task._callmethod, "__class__")
assert "shared storage" in raises(ValueError, task.put, "x" * (2 << 20))
assert "get_task" in str(task) or "Proxy" in str(task)
print("all as it should be")
