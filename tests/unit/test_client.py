"""The client against a master that drops, restarts, refuses and delays: nothing is lost or doubled."""

import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest
from fake_master import DEADLINE, DROP_AFTER, DROP_BEFORE, KEY, SILENT, FakeMaster, dead_block
from yardcerts import CLIENT, MASTER, now, settings

import taskyard
from taskyard import Job, TaskFailed, Yard, batch, messages, submitter, values
from taskyard.errors import (
    FunctionError,
    GapError,
    PayloadError,
    RefusedError,
    StorageError,
    TaskyardError,
    UnknownJobError,
    UnreachableError,
    UsageError,
)
from taskyard.messages import Chunk, Close, Fail, Failure, Open, Renew, Results, Row
from taskyard.settings import Settings
from taskyard.tls import client_context
from taskyard_ctl.certfiles import CertFolder

pytestmark = pytest.mark.timeout(60)

Function = Callable[..., Any]


def square(n: int) -> int:
    return n * n


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    master = FakeMaster(run=square)
    yield master
    master.stop()


@pytest.fixture
def yard(master: FakeMaster) -> Iterator[Yard]:
    with Yard(master.address, KEY) as yard:
        yield yard


def ready(yard: Yard, master: FakeMaster, count: int = 3) -> Job:
    """A job of ready tasks that nobody runs."""
    master.run = None
    return yard.submit("m:square", list(range(count)))


def row(first: int, *results: Any, started: float = 100.0, seconds: float = 1.0) -> Row:
    block = batch.pack(values.dumps_many(results))
    return Row(0, first, len(results), "completed", 0, 1, "w", "h", started, seconds, block)


def in_thread(work: Function, *arguments: Any) -> Callable[[], Any]:
    """Run in the background; what comes back waits for the end and gives the result, or raises."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((work(*arguments), None))
        except BaseException as error:  # noqa: BLE001 - handed over
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(DEADLINE)
        assert box, "it did not end"
        if box[0][1] is not None:
            raise box[0][1]
        return box[0][0]

    return result


@pytest.fixture
def events() -> Iterator[Callable[[str], threading.Event]]:
    """Events of the log by name, to wait for."""
    waiting: dict[str, threading.Event] = {}

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.setdefault(getattr(record, "event", ""), threading.Event()).set()

    handler, logger = Handler(), logging.getLogger("taskyard")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda name: waiting.setdefault(name, threading.Event())
    logger.removeHandler(handler)
    logger.setLevel(level)


# ---------------------------------------------------------------- submitting


@pytest.mark.parametrize(
    "inputs",
    [[3], list(range(1000)), range(70_000), (n for n in range(50_000)), {1: 2}, [], iter(())],
    ids=["one", "list", "range", "generator", "dict", "none", "nothing"],
)
def test_everything_submitted_is_there_once_and_in_order(yard, master, inputs):
    expected = list(range(50_000)) if "generator" in str(inputs) else None
    expected = list(inputs) if expected is None and not isinstance(inputs, Iterator) else expected or []
    job = yard.submit("m:square", inputs, name="squares", priority=3, max_attempts=5, timeout=2, retention=9)
    kept = master.jobs[job.id]
    assert kept.inputs() == expected
    assert kept.closing.total == len(expected)
    assert kept.closing.reason == ""
    assert kept.opening.name == "squares"
    assert kept.opening.options == messages.Options(5, 10, 2, 3, 9)
    assert list(job.values()) == [n * n for n in expected]
    assert job.workers == 2


def test_chunks_hold_what_they_may_and_no_more(yard, master):
    sizes = [10, 300_000, 5, 400_000, 7] + [1000] * 1000 + [1] * 50_000
    master.run = None
    yard.submit("m:f", (b"x" * size for size in sizes), job="a")
    yard.submit("m:f", [b"x" * size for size in sizes], job="b")
    for name in "ab":
        assert list(map(len, master.jobs[name].inputs())) == sizes
        for chunk in master.jobs[name].chunks:
            assert chunk.count <= submitter.COUNT
            assert len(chunk.block) <= batch.MAX_BYTES or chunk.count == 1


def test_a_fast_source_fills_its_chunks(yard, master):
    master.run = None
    yard.submit("m:f", (n for n in range(100_000)), job="a")
    yard.submit("m:f", range(100_000), job="b")
    assert len(master.jobs["a"].chunks) < 1000  # as many as there were answers meanwhile
    assert len(master.jobs["b"].chunks) < 40


def test_calls_carry_arguments(yard, master):
    master.run = None
    yard.submit("m:f", [((1, 2), {"k": 3}), ([], {})], job="a", calls=True)
    assert [values.parse(p) for p in master.jobs["a"].payloads()] == [
        (None, (1, 2), {"k": 3}),
        (None, (), {}),
    ]


def test_the_first_task_is_on_its_way_while_the_source_waits(yard, master):
    go = threading.Event()

    def slow() -> Iterator[int]:
        for n in range(3):
            yield n
            master.until(lambda n=n: any(job.next > n for job in master.jobs.values()))
        assert go.wait(DEADLINE)

    done = in_thread(yard.submit, "m:square", slow())
    master.until(lambda: any(job.next == 3 for job in master.jobs.values()))
    go.set()
    assert list(done().values()) == [0, 1, 4]


def test_a_master_that_holds_its_answers_holds_the_source(yard, master, monkeypatch):
    """The source is read no further than the window: a list of any length costs that much memory."""
    master.run = None
    go, held, read = threading.Event(), threading.Event(), []
    wait_for = submitter.Submitter._wait_for

    def watched(self: Any, *arguments: Any, **more: Any) -> None:
        held.set()
        wait_for(self, *arguments, **more)

    def source() -> Iterator[bytes]:
        for n in range(1000):
            read.append(n)
            yield b"x" * 100_000

    monkeypatch.setattr(submitter.Submitter, "_wait_for", watched)
    master.script = lambda r: go.wait(DEADLINE) if isinstance(r, Chunk) else None
    done = in_thread(yard.submit, "m:f", source())
    assert held.wait(DEADLINE)
    assert 10 < len(read) < 30
    go.set()
    assert master.jobs[done().id].next == 1000


def test_an_input_that_raises_closes_the_job_and_is_raised(yard, master):
    def source() -> Iterator[int]:
        yield from range(100)
        raise LookupError("no more lines")

    with pytest.raises(LookupError, match="no more lines"):
        yard.submit("m:square", source(), job="broken")
    job = master.jobs["broken"]
    assert job.inputs() == list(range(100))
    assert (job.closing.total, job.closing.reason) == (100, "LookupError: no more lines")
    assert yard.job("broken").status().state == "incomplete"


def test_an_input_that_does_not_travel_closes_the_job(yard, master):
    for name, source in (("a", [1, 2, threading.Lock()]), ("b", iter([1, 2, threading.Lock()]))):
        with pytest.raises(PayloadError, match="lock"):
            yard.submit("m:square", source, job=name)
        assert "lock" in master.jobs[name].closing.reason


def test_an_interrupted_submission_says_so(yard, master):
    def source() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        yard.submit("m:square", source(), job="stopped")
    assert "interrupted" in master.jobs["stopped"].closing.reason
    assert master.jobs["stopped"].closing.total == master.jobs["stopped"].next == 1


def test_a_refused_chunk_is_the_error_and_the_job_is_closed_where_it_ends(yard, master):
    master.run = None
    master.script = lambda r: (
        Fail(0, "StorageError", "the disk is full") if isinstance(r, Chunk) and r.first > 3000 else None
    )
    for name, source in (("a", range(200_000)), ("b", (n for n in range(200_000)))):
        with pytest.raises(StorageError, match="the disk is full"):
            yard.submit("m:square", source, job=name)
        job = master.jobs[name]
        assert job.closing.total == job.next
        assert "the disk is full" in job.closing.reason


def test_a_refused_job_is_the_error_not_what_follows_from_it(yard, master):
    for source in ([1], range(100_000), iter([1, 2])):
        with pytest.raises(UsageError, match="no worker has it"):
            yard.submit("no:function", source)
        assert master.jobs == {}


def test_a_gap_is_closed_when_the_tasks_before_it_are_accepted(yard, master):
    """A master may judge a chunk while it holds the one before it."""
    refused: set[int] = set()

    def script(request: Any) -> Any:
        if isinstance(request, Chunk) and request.first and request.first not in refused:
            refused.add(request.first)
            return Fail(0, "GapError", "a gap", 0)
        return None

    master.script = script
    with pytest.raises(GapError):  # nothing was on its way before this one: it is no matter of order
        yard.submit("m:square", _after_each(yard, master, 3))
    refused.clear()
    first_held = threading.Event()
    master.script = lambda r: script(r) if not isinstance(r, Chunk) or r.first else first_held.set()
    out = yard.open("m:square", job="gaps")
    out.extend([values.dumps(n) for n in range(100_000)])
    out.close()
    assert master.jobs["gaps"].inputs() == list(range(100_000))
    assert len(refused) > 1


def _after_each(yard: Yard, master: FakeMaster, count: int) -> Iterator[int]:
    for n in range(count):
        yield n
        master.until(lambda n=n: len(master.seen(Chunk)) > n)
        yard.status()  # its answer comes behind the one to the chunk


def test_a_named_job_is_come_back_to(yard, master):
    master.run = None
    taken = yard.open("m:square", job="nightly")
    taken.extend([values.dumps(n) for n in range(10)])
    taken.flush()
    with Yard(master.address, KEY) as other:
        job = other.submit("m:square", range(25), job="nightly")
        assert other.submit("m:square", iter(range(25)), job="nightly").id == job.id
    assert master.jobs["nightly"].inputs() == list(range(25))


def test_a_submitter_takes_no_more_after_its_end(yard):
    out = yard.open("m:square")
    assert [out.put(values.dumps(n)) for n in range(3)] == [0, 1, 2]
    assert out.extend([values.dumps(3), values.dumps(4)]) == 3
    out.flush()
    assert out.next == 5
    assert out.close() == 5
    with pytest.raises(UsageError, match="closed"):
        out.put(b"")
    with pytest.raises(UsageError, match="closed"):
        out.extend([b""])


def test_puts_from_many_threads_have_their_own_indices(yard, master):
    out = yard.open("m:square")

    def work(start: int) -> list[tuple[int, int]]:
        return [(out.put(values.dumps(start + n)), start + n) for n in range(2000)]

    ends = [in_thread(work, 10_000 * t) for t in range(5)]
    placed = dict(pair for end in ends for pair in end())
    out.close()
    assert len(placed) == 10_000
    assert master.jobs[out.job].inputs() == [placed[index] for index in range(10_000)]


def test_open_jobs_are_renewed(master):
    with Yard(master.address, KEY, renew=0.01) as yard:
        out = yard.open("m:square")
        master.until(lambda: master.jobs[out.job].renewed > 2 if out.job in master.jobs else False)
        out.close()
        known = len(master.seen(Renew))
        yard.submit("m:square", [1])
        assert len(master.seen(Renew)) <= known + 2


def test_what_is_submitted_inside_a_task_says_so(yard, master, monkeypatch):
    monkeypatch.setattr(taskyard, "inside_task", True)
    yard.submit("m:square", [1])
    assert all(chunk.inside for chunk in master.seen(Chunk))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda n: n, "lambda"),
        ("square", "module:function"),
        ("m.square", "module:function"),
        ("m:", "module:function"),
        (print, "no plain function"),
        (Yard.submit, "method"),
        (Yard, "no plain function"),
    ],
)
def test_functions_without_a_name_are_told_why(yard, master, function, said):
    with pytest.raises(FunctionError, match=said) as caught:
        yard.submit(function, [1])
    assert "\n" not in str(caught.value)
    assert master.seen(Open) == []


def test_functions_travel_by_name(yard, master, monkeypatch):
    def inner() -> None:
        pass

    with pytest.raises(FunctionError, match="inside another function"):
        yard.submit(inner, [1])
    monkeypatch.setattr(square, "__module__", "__main__")
    with pytest.raises(FunctionError, match="program itself"):
        yard.submit(square, [1])
    monkeypatch.setattr(square, "__module__", "squares")
    assert master.jobs[yard.submit(square, [1]).id].opening.function == "squares:square"


def test_one_text_is_no_list_of_inputs(yard):
    with pytest.raises(UsageError, match="list"):
        yard.submit("m:square", "abc")


# ---------------------------------------------------------------- drops and restarts


@pytest.mark.parametrize("kind", [Open, Chunk, Close])
@pytest.mark.parametrize("drop", [DROP_BEFORE, DROP_AFTER])
@pytest.mark.parametrize("source", [range, lambda n: iter(range(n))], ids=["range", "iterator"])
def test_a_drop_in_the_middle_of_submitting_loses_and_doubles_nothing(yard, master, kind, drop, source):
    count = 0

    def script(request: Any) -> str | None:
        nonlocal count
        if isinstance(request, kind):
            count += 1
            return drop if count % 3 == 1 else None
        return None

    master.script = script
    job = yard.submit("m:square", source(60_000))
    assert master.jobs[job.id].inputs() == list(range(60_000))
    assert len(master.hellos) > 1
    assert list(job.values()) == [n * n for n in range(60_000)]


def test_a_master_that_restarts_is_waited_for(yard, master):
    master.run = None
    away = threading.Event()

    def source() -> Iterator[int]:
        for n in range(30_000):
            if n == 10_000:
                master.stop()
                away.set()
            yield n

    done = in_thread(yard.submit, "m:square", source())
    assert away.wait(DEADLINE)
    master.start()
    job = done()
    assert master.jobs[job.id].inputs() == list(range(30_000))
    assert yard.trouble == ""


def test_results_go_on_where_they_were(yard, master):
    job = ready(yard, master, 400)
    found: list[int] = []
    seen = threading.Semaphore(0)

    def read() -> None:
        for outcome in job.results(follow=True):
            found.append(outcome.index)
            seen.release()

    done = in_thread(read)
    for n in range(400):
        master.add(job.id, row(n, n))
        if n % 100 == 50:
            master.drop()
        if n == 250:
            master.stop()
            master.start()
        assert seen.acquire(timeout=DEADLINE)
    done()
    assert found == list(range(400))
    assert len(master.hellos) > 3


def test_answers_that_get_lost_are_asked_for_again(yard, master):
    lost: list[Any] = []

    def script(request: Any) -> str | None:
        if isinstance(request, messages.Status) and not lost:
            lost.append(request)
            return SILENT
        return None

    master.script = script
    done = in_thread(yard.status)
    master.until(lambda: bool(lost))
    master.drop()
    assert done().master.address == master.address


def test_a_master_that_is_stopping_is_asked_again_later(yard, master):
    stopping = [True]
    master.script = lambda r: (
        Fail(0, "UnreachableError", "stopping") if stopping and isinstance(r, Chunk) else None
    )
    done = in_thread(yard.submit, "m:square", [1, 2])
    master.until(lambda: bool(master.seen(Chunk)))
    stopping.clear()
    master.drop()
    assert list(done().values()) == [1, 4]


def test_a_lost_connection_is_waited_for_as_long_as_asked(master):
    with Yard(master.address, KEY, reconnect=0.2) as yard:
        master.script = lambda r: SILENT
        done = in_thread(yard.status)
        master.until(lambda: bool(master.seen(messages.Status)))
        master.stop()
        with pytest.raises(UnreachableError, match="is it up"):
            done()
        with pytest.raises(UnreachableError):
            yard.status()


def test_a_key_that_changed_ends_it(master):
    with Yard(master.address, KEY) as yard:
        master.script = lambda r: SILENT
        done = in_thread(yard.status)
        master.until(lambda: bool(master.seen(messages.Status)))
        master.key = b"another key of sixteen"
        master.drop()
        with pytest.raises(RefusedError, match="TASKYARD_AUTHKEY"):
            done()


def test_a_request_may_have_a_time_limit(yard, master, events):
    master.script = lambda r: SILENT
    with pytest.raises(UnreachableError, match=r"within 0\.05 s.*connected"):
        yard.call(messages.Status(0), timeout=0.05)
    lost = events("connection-lost")
    master.stop()
    assert lost.wait(DEADLINE)
    with pytest.raises(UnreachableError, match=r"within 0\.05 s: .*(was lost|no master answers)"):
        yard.call(messages.Status(0), timeout=0.05)


def test_closing_wakes_whoever_waits(master):
    yard = Yard(master.address, KEY)
    master.script = lambda r: SILENT
    done = in_thread(yard.status)
    master.until(lambda: bool(master.seen(messages.Status)))
    yard.close()
    yard.close()
    with pytest.raises(UnreachableError, match="closed here"):
        done()
    with pytest.raises(UnreachableError, match="closed here"):
        yard.submit("m:square", [1])


def test_sending_and_receiving_much_at_once_does_not_lock(yard, master):
    """The master writes megabytes and reads nothing meanwhile, while we send as much."""
    job = ready(yard, master)
    block = batch.pack([values.dumps(b"x" * (8 << 20), 9 << 20)])
    for n in range(3):
        master.add(job.id, Row(0, n, 1, "completed", 0, 1, "w", "h", 1.0, 1.0, block))
    readers = [in_thread(lambda: [len(o.result) for o in job.results()]) for _ in range(3)]
    senders = [in_thread(yard.submit, "m:f", [b"y" * (1 << 19)] * 40) for _ in range(3)]
    assert [reader() for reader in readers] == [[8 << 20] * 3] * 3
    assert [master.jobs[sender().id].next for sender in senders] == [40] * 3


def test_many_threads_get_their_own_answers(yard, master):
    jobs = [yard.submit("m:square", [n], name=str(n)) for n in range(20)]

    def work(n: int) -> list[str]:
        return [jobs[n].status().name for _ in range(50)]

    ends = [in_thread(work, n) for n in range(20)]
    assert [end() for end in ends] == [[str(n)] * 50 for n in range(20)]


# ---------------------------------------------------------------- who answers


def test_nobody_answers(master):
    master.stop()
    with pytest.raises(
        UnreachableError, match=rf"no master answers at {master.address}: is it up\? taskyard up"
    ):
        Yard(master.address, KEY, patience=0.1)
    with pytest.raises(UnreachableError, match=r"the name no\.such\.host\.invalid"):
        Yard("no.such.host.invalid:1", KEY, patience=0)


def test_a_master_that_comes_late_is_waited_for(master):
    master.stop()
    done = in_thread(Yard, master.address, KEY)
    threading.Timer(0.2, master.start).start()
    done().close()


def test_the_wrong_key_is_refused_once(master):
    with pytest.raises(RefusedError, match=f"{master.address}.*TASKYARD_AUTHKEY"):
        Yard(master.address, "some other key, just as long", patience=DEADLINE)


def test_a_master_that_does_not_know_the_key_is_not_trusted(monkeypatch):
    """It says welcome to any answer; its own proof gives it away."""
    monkeypatch.setattr("taskyard.frames._Handshake._verify", _trusting)
    master = FakeMaster()
    try:
        monkeypatch.setattr(master, "key", b"not the key, only pretending")
        with pytest.raises(RefusedError, match="does not know the authkey"):
            Yard(master.address, KEY, patience=DEADLINE)
    finally:
        master.stop()


def _trusting(self: Any, answer: bytes, refusal: str) -> None:
    from taskyard import frames

    if isinstance(self, frames.ServerHandshake):
        return
    if self._mac(self._message, "sha256") != answer[8:]:
        raise RefusedError(refusal)


def test_a_refused_hello_is_an_error_with_the_masters_words(master):
    master.script = lambda r: Fail(0, "RefusedError", "this master speaks yard/2: give both one version")
    with pytest.raises(RefusedError, match="yard/2"):
        Yard(master.address, KEY, patience=DEADLINE)
    assert len(master.hellos) == 1


def test_a_master_that_is_not_ready_is_asked_again(master):
    tries = []

    def script(request: Any) -> Any:
        tries.append(request)
        return Fail(0, "StorageError", "the journal is being read") if len(tries) < 3 else None

    master.script = script
    Yard(master.address, KEY).close()
    assert len(tries) >= 3


@pytest.fixture
def stranger() -> Iterator[Callable[[bytes | None], str]]:
    """Something that listens, says this, and reads until we go; None: hangs up at once."""
    listeners = []

    def make(words: bytes | None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    if words is not None:
                        sock.sendall(words)
                        while sock.recv(1000):
                            pass

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no master: check TASKYARD_ADDRESS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no master: check TASKYARD_ADDRESS"),
        (b"\0\0\0\x05hello", "is no master: check TASKYARD_ADDRESS"),
        (b"", "says nothing"),
        (None, "hung up"),
    ],
)
def test_a_stranger_answers(stranger, words, said):
    address = stranger(words)
    with pytest.raises(UnreachableError, match=said) as caught:
        Yard(address, KEY, patience=0.3)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


class Manager(BaseManager):
    pass


def test_a_plain_manager_answers():
    manager = Manager(("127.0.0.1", 0), KEY)
    server = manager.get_server()
    listening = threading.Event()

    def serve() -> None:
        listening.set()
        server.accepter()

    server.stop_event = threading.Event()
    threading.Thread(target=serve, daemon=True).start()
    assert listening.wait(DEADLINE)
    host, port = server.address
    address = f"{host}:{port}"
    with pytest.raises(UnreachableError, match=r"plain multiprocessing manager.*TASKYARD_DIALECT=plain"):
        Yard(address, KEY, patience=DEADLINE)
    server.listener.close()


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Callable[..., dict[str, str]]:
    """Settings of a member of a yard, by the name of the yard."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(yard: str, member: str = "client") -> dict[str, str]:
        certs = CertFolder(folder / yard)
        certs.ensure([MASTER, CLIENT], now())
        return {"TASKYARD_AUTHKEY": KEY.decode(), **settings(certs, member)}

    return make


@pytest.fixture
def sealed(certificates) -> Iterator[FakeMaster]:
    from taskyard.tls import server_context

    master = FakeMaster(square, server_context(Settings.from_env(certificates("ours", "master"))))
    yield master
    master.stop()


def test_all_of_it_goes_over_tls(sealed, certificates):
    environ = {**certificates("ours"), "TASKYARD_ADDRESS": sealed.address}
    with Yard.from_env(environ) as yard:
        job = yard.submit("m:square", range(100_000))
        assert list(job.values()) == [n * n for n in range(100_000)]
        sealed.drop()
        assert list(yard.submit("m:square", iter(range(1000))).values()) == [n * n for n in range(1000)]


def test_tls_refuses_others(sealed, certificates, master, stranger):
    theirs = client_context(Settings.from_env(certificates("theirs")))
    with pytest.raises(RefusedError, match="is not of the authority"):
        Yard(sealed.address, KEY, ssl=theirs, patience=DEADLINE)
    intruder = client_context(Settings.from_env(certificates("theirs")))
    assert intruder is not None
    intruder.check_hostname, intruder.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(TaskyardError, match=r"refused our certificate|hung up"):
        Yard(sealed.address, KEY, ssl=intruder, patience=0.2)
    ours = client_context(Settings.from_env(certificates("ours")))
    with pytest.raises(RefusedError, match="does not speak TLS"):
        Yard(master.address, KEY, ssl=ours, patience=DEADLINE)
    with pytest.raises(UnreachableError, match="TLS"):
        Yard(sealed.address, KEY, patience=0.2)
    with pytest.raises(UnreachableError, match="broke off the TLS"):
        Yard(stranger(None), KEY, ssl=ours, patience=0.1)


def test_tls_is_mutual_and_new(certificates):
    context = client_context(Settings.from_env(certificates("ours")))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert client_context(Settings.from_env({"TASKYARD_AUTHKEY": KEY.decode()})) is None
    with pytest.raises(TaskyardError, match="taskyard certs"):
        client_context(Settings.from_env({**certificates("ours"), "TASKYARD_TLS_KEY": "/nowhere"}))


# ---------------------------------------------------------------- errors of the master


def test_errors_come_back_as_what_they_were(yard, master):
    with pytest.raises(UnknownJobError, match="nothing"):
        yard.job("nothing")
    master.script = lambda r: Fail(0, "GapError", "a gap", 7)
    with pytest.raises(GapError) as caught:
        yard.status()
    assert caught.value.expected == 7
    for name in ("Unheard", "Exception", "EXIT_DONE", ""):
        master.script = lambda r, name=name: Fail(0, name, "said")
        with pytest.raises(TaskyardError, match="said") as other:
            yard.status()
        assert type(other.value) is TaskyardError
    master.script = lambda r: messages.Ok(0)
    with pytest.raises(TaskyardError, match="answered Status with Ok"):
        yard.status()


def test_what_is_no_message_ends_the_connection(master, yard, monkeypatch):
    encode = messages.encode

    def junk(message: Any) -> bytes:
        return b"\xc1junk" if isinstance(message, messages.StatusReply) else encode(message)

    monkeypatch.setattr(messages, "encode", junk)
    with pytest.raises(TaskyardError, match="no message"):
        yard.status()


# ---------------------------------------------------------------- results


def test_outcomes_share_the_time_of_their_run(yard, master):
    job = ready(yard, master, 4)
    master.add(job.id, row(0, "a", "b", "c", "d", started=50.0, seconds=2.0))
    outcomes = list(job.results())
    assert [(o.index, o.state, o.value, o.error, o.attempts, o.worker, o.host) for o in outcomes] == [
        (n, "completed", "abcd"[n], None, 1, "w", "h") for n in range(4)
    ]
    assert [(o.started, o.seconds) for o in outcomes] == [(50.0, 0.5), (50.5, 0.5), (51.0, 0.5), (51.5, 0.5)]
    assert outcomes[0].exception is None


def test_dead_tasks_raise_their_exception(yard, master):
    job = ready(yard, master, 3)
    known = Failure("raised", "ValueError", "no", "in task", values.dump_exception(ValueError("no")))
    master.add(job.id, row(0, 5))
    master.add(
        job.id,
        Row(
            0,
            1,
            2,
            "dead",
            0,
            3,
            "w",
            "h",
            1.0,
            1.0,
            dead_block(known, Failure("timed out", "", "after 3 s")),
        ),
    )
    good, raised, late = job.results()
    assert good.value == 5
    assert (raised.state, raised.attempts, raised.error.message) == ("dead", 3, "no")
    with pytest.raises(ValueError, match="no") as caught:
        _ = raised.value
    assert "in task" in str(caught.value.__cause__)
    with pytest.raises(TaskFailed, match="after 3 s"):
        _ = late.value
    assert type(raised.exception) is ValueError
    assert [o.index for o in job.results(failed=True)] == [1, 2]
    with pytest.raises(ValueError, match="no"):
        list(job.values(follow=False))


def test_a_result_that_cannot_be_read_leaves_the_others(yard, master):
    job = ready(yard, master, 6)
    block = batch.pack([*values.dumps_many([0, 1, 2]), b"\x80\x03cos\nsystem\n.", *values.dumps_many([4, 5])])
    master.add(job.id, Row(0, 0, 6, "completed", 0, 1, "w", "h", 1.0, 1.0, block))
    outcomes = list(job.results())
    assert [o.result for o in outcomes] == [0, 1, 2, None, 4, 5]
    assert "TASKYARD_ALLOW" in outcomes[3].error.message
    with pytest.raises(PayloadError, match=r"os\.system"):
        _ = outcomes[3].value


def test_results_in_order_and_from_a_place(yard, master):
    job = ready(yard, master, 4)
    for n in (2, 0, 3, 1):
        master.add(job.id, row(n, n))
    assert [o.index for o in job.results()] == [2, 0, 3, 1]
    assert [o.index for o in job.results(ordered=True)] == [0, 1, 2, 3]
    assert [o.index for o in job.results(ordered=True, cursor=2)] == [2, 3]
    places = [r.at for r in job.rows()]
    assert [o.index for o in job.results(cursor=places[1])] == [3, 1]
    assert list(job.values(follow=False, ordered=False)) == [2, 0, 3, 1]


def test_results_end_with_what_is_there_or_with_the_job(yard, master):
    job = ready(yard, master, 2)
    assert list(job.results()) == []
    master.add(job.id, row(0, 0))
    assert [o.index for o in job.results()] == [0]
    followed = in_thread(lambda: [o.index for o in job.results(follow=True)])
    master.until(lambda: any(r.wait for r in master.seen(Results)))
    master.add(job.id, row(1, 1))
    assert followed() == [0, 1]


def test_the_next_rows_are_asked_for_while_these_are_used(yard, master):
    job = ready(yard, master, 2)
    for n in range(2):
        master.add(job.id, row(n, n))
    reading = job.results()
    assert next(reading).index == 0
    master.until(lambda: len(master.seen(Results)) == 2)
    reading.close()
    assert yard.connection._unanswered == {} or len(yard.connection._unanswered) <= 1


def test_waiting_for_the_end(yard, master):
    job = ready(yard, master, 1)
    with pytest.raises(TimeoutError, match="within"):
        job.wait(0.05)
    done = in_thread(job.wait)
    master.add(job.id, row(0, 0))
    assert done().completed == 1
    assert job.wait(0).completed == 1


# ---------------------------------------------------------------- verbs


def test_verbs(yard, master):
    job = yard.submit("m:square", [1, 2], name="pair")
    assert job.status().completed == 2
    assert yard.job(job.id).id == job.id
    assert job.requeue() == 0
    job.cancel()
    assert master.jobs[job.id].cancelled
    yard.drain("w1", undo=True)
    assert master.seen(messages.Drain)[0].undo
    job.delete()
    with pytest.raises(UnknownJobError):
        job.status()
    assert repr(job) == f"Job({job.id!r})"


def test_what_was_deleted_before_the_answer_got_lost_is_deleted(yard, master):
    job = yard.submit("m:square", [1, 2])
    lost: list[Any] = []

    def script(request: Any) -> str | None:
        if isinstance(request, messages.Delete) and not lost:
            lost.append(request)
            return DROP_AFTER
        return None

    master.script = script
    job.delete()
    assert lost
    assert master.jobs == {}
    with pytest.raises(UnknownJobError):
        job.delete()


def test_a_forked_process_is_told_to_connect_itself(yard):
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            yard.status()
            said = b"nothing"
        except UsageError as error:
            said = str(error).encode()
        os.write(sender, said)
        os._exit(0)
    os.close(sender)
    assert b"after a fork" in os.read(receiver, 1000)
    os.close(receiver)
    os.waitpid(child, 0)
    assert yard.status()


def test_a_backup_is_whole_or_not_there(yard, master, tmp_path: Path):
    assert yard.backup(tmp_path / "journal") == 3000
    assert (tmp_path / "journal").read_bytes() == master.copy

    first = master.copy

    def restart(request: Any) -> Any:
        if isinstance(request, messages.Backup) and request.offset == 2000 and master.copy is first:
            master.copy = first[::-1]  # another copy, as long
            master.stop()
            master.start()
        return None

    master.script = restart
    assert yard.backup(tmp_path / "other") == 3000
    assert (tmp_path / "other").read_bytes() == first[::-1]
    master.script = lambda r: Fail(0, "StorageError", "disk") if getattr(r, "offset", 0) else None
    with pytest.raises(StorageError):
        yard.backup(tmp_path / "third")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal", "other"]


def test_the_environment_says_it_all(master):
    environ = {
        "TASKYARD_ADDRESS": master.address, "TASKYARD_AUTHKEY": KEY.decode(), "TASKYARD_PAYLOAD": "100",
        "TASKYARD_ALLOW": "fractions.Fraction", "TASKYARD_ABANDON": "40",
    }  # fmt: skip
    with Yard.from_env(environ, label="me") as yard:
        assert yard.address == master.address
        assert yard._renew == 10
        with pytest.raises(PayloadError, match="TASKYARD_PAYLOAD"):
            yard.submit("m:square", [b"x" * 200])
    assert master.hellos[0].name == "me"
    assert master.hellos[0].role == "client"


def test_importing_the_package_imports_little():
    code = "import sys, taskyard; print(*{'msgspec', 'socket', 'ssl', 'logging'} & {*sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
    code = (
        "import sys; from taskyard import Yard; print(*(n for n in ('ssl', 'asyncio') if n in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
    assert "Yard" in dir(taskyard)
    with pytest.raises(AttributeError, match="Yad"):
        _ = taskyard.Yad
