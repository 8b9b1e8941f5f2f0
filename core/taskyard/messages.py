"""Requests, replies and notices of the yard dialect, and the records of the journal.

Every frame of the yard dialect is one of these structs in msgpack. Requests and
their replies carry the same `seq`, chosen by the side that asks, so that calls
pipeline and replies may come in any order; a notice from the master has seq 0.
Blocks (see `batch`) are opaque here: nobody on the way looks inside.

Times: `started`, `at`, `since` are Unix seconds; durations are seconds.
"""

from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")

PROTOCOL = 1
GREETING = b"yard/1"  # the first frame after the handshake begins with it, then comes the Hello

# What a worker says of a run of indices that it held under a lease.
Kind = Literal[
    "completed",
    "failed",  # the function raised: one attempt
    "refused",  # can never succeed (vanished function, result that does not travel): dead at once
    "timeout",  # ran longer than the job's timeout and was killed: one attempt
    "killed",  # its slot died while running it: one attempt
    "suspect",  # its slot was killed from outside while others ran: run it alone, free
    "released",  # not begun, given back: free
]
State = Literal["ready", "leased", "delayed", "suspect", "completed", "dead", "cancelled"]


class Struct(msgspec.Struct, array_like=True, tag=True, tag_field="tag"):
    """Base of everything on the wire: arrays with the class name as tag."""


# ---------------------------------------------------------------- parts


class Options(Struct):
    """What a submitter may ask of a job."""

    max_attempts: int = 3
    max_losses: int = 10
    timeout: float = 0.0  # seconds a task may run; 0 = no limit
    priority: int = 0  # higher first, strictly
    retention: float = 604800.0  # seconds that results are kept after the job's end; 0 = for ever
    consume: bool = False  # `plain` and executor jobs: what was taken goes when it is so old


class Held(Struct):
    """A range that a worker says it holds."""

    lease: int
    job: str
    first: int
    count: int


class Grant(Struct):
    """A lease handed to a worker: `count` tasks of `job` from index `first`."""

    lease: int  # boot number of the master << 40 | counter: never reused
    job: str
    function: str  # "module:function"; "" where each payload names its own
    first: int
    count: int
    timeout: float
    suspect: bool  # run it while holding nothing else; if count is 1, send Begin first
    block: bytes


class Outcome(Struct):
    """What became of a run of indices held under one lease, all of the same kind."""

    lease: int
    job: str
    first: int
    count: int
    kind: Kind
    started: float  # Unix seconds when the first of the run began
    seconds: float  # time spent in the function over the whole run
    block: bytes  # completed: values; released, suspect: empty; else one msgpack Failure an index
    void: bool = False  # completed, and there is no result to be had (a plain peer's task_done)


class Failure(Struct):
    """Why a task did not complete."""

    reason: Literal["raised", "refused", "timed out", "killed", "lost"]
    type: str  # exception type, "module.Name" ("Name" for builtins); "" if there was none
    message: str  # one line for people
    traceback: str = ""  # the tail of it
    exception: bytes = b""  # the exception as a value (see `values`), where it travels


class Running(Struct):
    """What one slot is doing."""

    slot: int
    job: str
    index: int
    since: float


class Row(Struct):
    """Recorded outcomes of a run of indices of one job."""

    at: int  # the journal's seq: a cursor
    first: int
    count: int
    state: Literal["completed", "dead"]
    round: int
    attempts: int
    worker: str
    host: str
    started: float
    seconds: float
    block: bytes  # values, or msgpack Failures


class JobStatus(Struct):
    """One job in counts of tasks."""

    id: str
    name: str
    function: str
    state: Literal["open", "closed", "incomplete", "cancelled"]
    total: int  # indices accepted so far; final once the state is not "open"
    ready: int
    leased: int
    delayed: int
    suspect: int
    completed: int
    dead: int
    cancelled: int
    retries: int
    seconds: float  # worker seconds spent so far
    created: float
    ended: float  # 0 while something is unfinished
    priority: int
    note: str  # why it waits or was closed incomplete, for people; else ""
    error: str  # the latest failure in one line; else ""


class WorkerStatus(Struct):
    """One worker as the master sees it."""

    id: str
    host: str
    pid: int
    container: str
    state: Literal["idle", "running", "draining", "drained", "missing"]
    slots: int
    running: list[Running]
    leased: int  # tasks held, running included
    completed: int
    failed: int
    joined: float
    seen: float
    version: str
    python: str
    digest: str
    functions: list[str]
    memory: int  # bytes, agent and slots together
    baked: bool = False  # the tasks are part of its image


class MasterStatus(Struct):
    """The master about itself."""

    address: str
    pid: int
    version: str
    python: str
    started: float
    boot: int
    web: str  # address of the dashboard; "" if it is off
    journal: str
    journal_bytes: int
    memory: int
    connections: int
    warnings: list[str]


# ------------------------------------------------- requests, with their replies


class Hello(Struct):
    """First message of a connection, right after GREETING. Answer: Welcome."""

    seq: int
    role: Literal["worker", "client"]
    name: str  # worker id, stable over reconnects of one process; for clients a label
    host: str
    pid: int
    boot: str  # random, one a process: names the holder of leases
    version: str  # of taskyard
    python: str
    protocol: int = PROTOCOL
    container: str = ""
    slots: int = 0
    functions: list[str] = []  # what a worker can run
    digest: str = ""  # of the tasks folder
    baked: bool = False  # the tasks are part of the image
    held: list[Held] = []  # complete: what is left out is released


class Welcome(Struct):
    seq: int
    master: MasterStatus
    lease: float  # seconds a lease lasts without a heartbeat
    drop: list[int]  # leases of the Hello that are somebody else's now


class Open(Struct):
    """Create a job, or come back to it. Answer: Opened."""

    seq: int
    job: str  # chosen by the submitter: 12 hex digits, or a fixed name such as "plain"
    name: str
    function: str
    options: Options
    submitter: str


class Opened(Struct):
    seq: int
    job: str
    next: int  # the index that the next chunk starts at
    workers: int  # joined workers that can run the function


class Chunk(Struct):
    """Submit `count` tasks. Answer: Accepted, after the commit."""

    seq: int
    job: str
    first: int
    count: int
    digest: bytes  # of the block, see batch.digest
    block: bytes
    inside: bool = False  # sent from inside a task: refused, never held, at the backlog limit


class Accepted(Struct):
    seq: int
    next: int


class Close(Struct):
    """No more chunks. Answer: Ok."""

    seq: int
    job: str
    total: int
    reason: str = ""  # not empty: the job is incomplete, and why


class Renew(Struct):
    """The submitter of an open job is alive. Answer: Ok."""

    seq: int
    job: str


class Lease(Struct):
    """A worker wants tasks. Answer: Leased, once there is something."""

    seq: int
    want: int  # tasks of a function whose pace is unknown
    wants: dict[str, int] = {}  # tasks by function, sized to the worker's pace
    space: int = 4 << 20  # bytes of blocks that the worker will take


class Leased(Struct):
    seq: int
    grants: list[Grant]


class Begin(Struct):
    """A suspect that stands alone is about to run. Answer: Ok after the commit, or Fail: drop it."""

    seq: int
    lease: int


class Settle(Struct):
    """Outcomes of held tasks. Answer: Settled, after the commit."""

    seq: int
    outcomes: list[Outcome]


class Settled(Struct):
    seq: int
    accepted: int
    duplicates: int


SAID = 20  # lines that tasks printed, at most, in a Beat
SAID_LENGTH = 300  # characters of each


class Beat(Struct):
    """A worker's heartbeat: renews the leases that it names. Answer: Beaten."""

    seq: int
    leases: list[int]
    running: list[Running] = []
    state: Literal["running", "draining", "drained"] = "running"
    memory: int = 0
    said: list[tuple[str, str]] = []  # the latest lines that tasks printed: "job/index" and text


class Beaten(Struct):
    seq: int
    drop: list[int]  # leases that are not this worker's (any more)


class Functions(Struct):
    """What a worker can run changed (its tasks folder did). Answer: Ok."""

    seq: int
    functions: list[str]
    digest: str


class Results(Struct):
    """Read recorded outcomes after a cursor; not consumed by reading. Answer: Rows."""

    seq: int
    job: str
    cursor: int = 0  # a Rows.cursor: the journal's seq, or with `ordered` an index
    ordered: bool = False
    failed: bool = False  # dead tasks only
    wait: float = 0.0  # seconds to hold the answer while there is nothing new
    space: int = 4 << 20  # bytes


class Rows(Struct):
    seq: int
    rows: list[Row]
    cursor: int
    done: bool  # the job is closed, nothing is unfinished and every row was read


class Status(Struct):
    """Answer: StatusReply. `job`: an id, a name or a prefix of an id; "" for all."""

    seq: int
    job: str = ""


class StatusReply(Struct):
    seq: int
    master: MasterStatus
    jobs: list[JobStatus]
    workers: list[WorkerStatus]


class Cancel(Struct):
    """Final for everything unfinished; closes the job. Answer: Ok."""

    seq: int
    job: str


class Requeue(Struct):
    """Start the next round of dead tasks. Answer: Settled (accepted = how many)."""

    seq: int
    job: str
    first: int = 0
    count: int = -1  # -1: to the end


class Delete(Struct):
    """Forget a job and its blocks; its id stays known. Answer: Ok."""

    seq: int
    job: str


class Drain(Struct):
    """Tell a worker to lease nothing new and finish what it holds. Answer: Ok."""

    seq: int
    worker: str
    undo: bool = False


class Backup(Struct):
    """Copy the journal while running. Answer: BackupPart, again and again with its `offset`."""

    seq: int
    offset: int = 0


class BackupPart(Struct):
    seq: int
    data: bytes
    offset: int  # of the next part
    size: int  # of the whole copy


class Invite(Struct):
    """Leave something for the machine that shows a certificate with this serial. Answer: Ok."""

    seq: int
    serial: str  # upper-case hex
    host: str
    ends: float  # Unix seconds
    gift: bytes  # see `invitation`


class Gift(Struct):
    """What was left for a peer that came to join: all that it is told (seq 0), or Fail."""

    seq: int
    gift: bytes


class Ok(Struct):
    seq: int


class Fail(Struct):
    """The request was not done; `error` is the name of a class in `errors`."""

    seq: int
    error: str
    message: str
    expected: int = 0


class Notice(Struct):
    """The master tells a worker something unasked (seq 0)."""

    seq: int
    kind: Literal["drop", "drain", "undrain"]
    leases: list[int] = []


Request = (
    Hello | Open | Chunk | Close | Renew | Lease | Begin | Settle | Beat | Functions | Results
    | Status | Cancel | Requeue | Delete | Drain | Backup | Invite
)  # fmt: skip
Reply = (
    Welcome | Opened | Accepted | Leased | Settled | Beaten | Rows | StatusReply | BackupPart | Ok
    | Fail | Notice | Gift
)  # fmt: skip

# ---------------------------------------------------------------- records of the journal


class Opening(Struct):
    """A job was opened."""

    job: str
    name: str
    function: str
    options: Options
    submitter: str
    at: float


class Chunked(Struct):
    """Tasks were accepted; the block is beside the record."""

    job: str
    first: int
    count: int
    digest: bytes


class Closing(Struct):
    job: str
    total: int
    reason: str
    at: float


class Granting(Struct):
    """A range was leased; rides in the next commit, nobody waits for it."""

    job: str
    first: int
    count: int
    lease: int
    worker: str
    boot: str
    suspect: bool


class Beginning(Struct):
    """A suspect that stands alone is about to run."""

    job: str
    first: int
    lease: int


class Ending(Struct):
    """Outcomes that end a round: completed or dead. The block is beside the record."""

    job: str
    first: int
    count: int
    state: Literal["completed", "dead"]
    round: int
    attempts: int  # executions that the task answers for, this one included
    worker: str
    host: str
    started: float
    seconds: float
    at: float
    void: bool = False  # finished and gives no result (a plain peer's task_done)


class Retrying(Struct):
    """A failed execution that will be tried again at `due`; the failures are beside the record."""

    job: str
    first: int
    count: int
    attempts: int
    due: float  # Unix seconds
    worker: str
    seconds: float


class Returning(Struct):
    """A range came back without a charge: ready again, or suspect (to be run alone)."""

    job: str
    first: int
    count: int
    lease: int
    suspect: bool


class Losing(Struct):
    """A range was lost with its worker: it comes back as two halves, or charged if it stood alone."""

    job: str
    first: int
    count: int
    lease: int
    charged: bool


class Cancelling(Struct):
    job: str
    at: float


class Requeuing(Struct):
    job: str
    ranges: list[tuple[int, int]]


class Taking(Struct):
    """Results of a consumed job were handed over up to here, in order of seq."""

    job: str
    at: int  # seq of the row
    offset: int  # results of that row taken, this one included
    count: int  # taken by this record


class Deleting(Struct):
    job: str
    at: float


Record = (
    Opening | Chunked | Closing | Granting | Beginning | Ending | Retrying | Returning | Losing
    | Cancelling | Requeuing | Taking | Deleting
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_records: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_failure: msgspec.msgpack.Decoder[Failure] = msgspec.msgpack.Decoder(Failure)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", data: bytes) -> T:
    """Decode; whatever is wrong with the bytes is a MsgspecError, broken text and endless depth too."""
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode_request(frame: bytes) -> Request:
    """Decode a frame from a client or worker; raises msgspec.MsgspecError on anything else."""
    return _decode(_requests, frame)


def decode_reply(frame: bytes) -> Reply:
    """Decode a frame from the master; raises msgspec.MsgspecError on anything else."""
    return _decode(_replies, frame)


def decode_record(data: bytes) -> Record:
    return _decode(_records, data)


def decode_failure(data: bytes) -> Failure:
    return _decode(_failure, data)
