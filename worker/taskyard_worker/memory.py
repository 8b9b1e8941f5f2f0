"""The memory that an agent shares with one slot, and its layout; it survives the slot's death.

There are two regions, used in turn, so that one batch can lie ready while the slot
works on the other. In each of them the agent writes the tasks, and the slot appends
outcome after outcome, *first* its bytes, then `times`, `kinds` and `ends`, and `done`
last: what `done` counts is complete even if the slot is killed the moment after, and
nothing of it costs a system call. Which task runs, and since when, needs no word of
its own either: it is number `done`, and it began when the one before it ended.

    region   state     8 words, see the constants (slot and agent)
             began     monotonic seconds when the first task began (slot)
             times     float64[TASKS], monotonic seconds when each task ended (slot)
             ends      uint32[TASKS + 1], where each outcome ends in `output`; ends[0] = 0 (slot)
             kinds     uint8[TASKS], what each outcome is (slot)
             text      "job\\0module:function" (agent)
             input     a block of payloads, see taskyard.batch (agent)
             output    outcomes end to end: values, or msgpack Failures (slot)

The memory of two processes is ordered by what happens between them: a bell (a write
and a read of a pipe) and a death order everything before. A look without a bell is
only trusted one tick later (see slots.py), so no barriers are needed on any processor.
"""

import mmap
import os
import struct

TASKS = 4096  # most tasks in a batch
TEXT = 4096
ROOM = 64 << 10  # bytes that any Failure fits into

# Words of a region's state.
SEQ, FIRST, COUNT, SIZE, TEXT_SIZE, DONE, PHASE, LIMIT = range(8)
# Values of PHASE. A task is running only while the phase says so and DONE < COUNT.
GIVEN, LOADING, RUNNING, ENDED = range(4)
# Values of `kinds`.
COMPLETED, FAILED, REFUSED = range(3)

# Words of the head.
READS = 0  # how often the agent has read what the slot printed (agent)

# What goes over the two pipes.
ORDER = struct.Struct(
    "<Q"
)  # agent to slot: the number of a batch, not 0; its region is the number's last bit
BELL = struct.Struct("<QQ")  # slot to agent: the batch that has ended (0: it has started), tasks done

CLOSED = 93  # exit code of a slot whose pipes a task has closed

_HEAD = 64


class Region:
    """One of the two batches' places: typed views of the shared memory."""

    __slots__ = ("began", "ends", "input", "kinds", "output", "state", "text", "times")

    def __init__(self, view: memoryview, room: int) -> None:
        at = 0

        def cut(size: int) -> memoryview:
            nonlocal at
            at += size
            return view[at - size : at]

        self.state = cut(8 * 8).cast("Q")
        self.began = cut(8).cast("d")
        self.times = cut(8 * TASKS).cast("d")
        self.ends = cut(4 * TASKS + 8).cast("I")
        self.kinds = cut(TASKS)
        self.text = cut(TEXT)
        self.input = cut(_input_size(room))
        self.output = cut(_output_size(room))


class Memory:
    """The whole mapping; `payload` is the size of the largest value in bytes, the same on both sides."""

    def __init__(self, fd: int, payload: int) -> None:
        self.fd = fd
        self.room = max(payload, ROOM)
        size = _region_size(self.room)
        self._map = mmap.mmap(fd, _HEAD + 2 * size)
        view = memoryview(self._map)
        self.head = view[:_HEAD].cast("Q")
        self.regions = tuple(
            Region(view[_HEAD + i * size : _HEAD + (i + 1) * size], self.room) for i in range(2)
        )

    @classmethod
    def create(cls, payload: int) -> "Memory":
        """New memory, all zero, in no file system where the kernel has memfd. Pages exist once touched."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("taskyard-slot", os.MFD_CLOEXEC)
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, _HEAD + 2 * _region_size(max(payload, ROOM)))
        return cls(fd, payload)

    def close(self) -> None:
        """Give the descriptor back; the mapping goes when nothing points to it any more."""
        os.close(self.fd)


def _input_size(room: int) -> int:
    return room + ROOM  # one value of any size with its offsets, or TASKS small ones


def _output_size(room: int) -> int:
    return 4 * room  # a batch ends early once less than `room` is left


def _region_size(room: int) -> int:
    size = 8 * 8 + 8 + 8 * TASKS + 4 * TASKS + 8 + TASKS + TEXT + _input_size(room) + _output_size(room)
    return (size + 7) & ~7  # the words of the second region stay aligned
