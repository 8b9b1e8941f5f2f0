"""plain.py: honest values, in and out, between every Python that this machine has.

What hostile peers try is in test_plain_abuse.py.
"""

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import pickle
import queue
import subprocess
import uuid
import zoneinfo
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythons import VERSIONS, python

from taskyard import plain
from taskyard.errors import PayloadError
from taskyard.plain import Inert

PROTOCOLS = [2, 3, 4, 5]

primitives = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
keys = primitives | st.tuples(primitives, primitives)
values = st.recursive(
    primitives
    | st.binary(max_size=5).map(bytearray)
    | st.sets(keys, max_size=4)
    | st.frozensets(keys, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
        | st.lists(inner, min_size=1, max_size=2).map(lambda items: [items, items, (items,)])  # shared
    ),
    max_leaves=20,
)


def exact(value: Any) -> Any:
    """Something equal only for values equal in their types, too: 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return dict, [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), {(type(item), repr(item)) for item in value}
    return type(value), repr(value)


def same(left: Any, right: Any) -> bool:
    return bool(exact(left) == exact(right))


# -- plain data --------------------------------------------------------------------------------------------


@given(values, st.sampled_from(PROTOCOLS))
def test_reads_what_pickle_writes(value: Any, protocol: int) -> None:
    assert plain.loads(pickle.dumps(value, protocol)) == value
    assert plain.loads(memoryview(bytearray(pickle._dumps(value, protocol)))) == value  # the one in Python


@given(values)
def test_writes_what_pickle_reads(value: Any) -> None:
    written = plain.dumps(value)
    assert written[:2] == b"\x80\x04"
    assert same(pickle.loads(written), value)
    assert plain.loads(written) == value


@given(values)
def test_values_with_closed_objects_are_written_alike(value: Any) -> None:
    marker = Inert("datetime", "date", (b"\x07\xe4\x01\x01",))
    written = plain.dumps([value, marker, value])
    left, day, right = pickle.loads(written)
    assert same(left, value)
    assert same(right, value)
    assert day == datetime.date(2020, 1, 1)


def test_requests_of_a_manager() -> None:
    for request in (
        (None, "create", ("get_task",), {}),
        (None, "accept_connection", ("MainThread",), {}),
        ("get_task", "get", (True, 1.5), {}),
        ("get_result", "put", ({"id": 7, "rows": [(1, 2.5, "ä"), (2, None, "b")]},), {"timeout": 3}),
    ):
        assert same(plain.loads(bytes(ForkingPickler.dumps(request))), request)


def test_numbers_of_every_size_alone_and_in_rows() -> None:
    edges = [0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**63, 2**255, 2**2047, 2**3000]
    numbers = [*edges, *(-n for n in edges)]
    for value in (*numbers, numbers, numbers * 20, list(range(-300, 70_000)), [0.1] * 5000, [7] * 9, [7] * 8):
        for protocol in PROTOCOLS:
            assert plain.loads(pickle.dumps(value, protocol)) == value
    nan = plain.loads(pickle.dumps(float("nan")))
    assert nan != nan


@pytest.mark.parametrize("length", range(20))
def test_rows_of_numbers_of_every_length(length: int) -> None:
    for number in (7, 700, -70_000, 0.5):
        for tail in ((), ("x",), (number + 1,), (0.25,), (None,)):
            row = (*[number] * length, *tail)
            assert plain.loads(pickle.dumps(row)) == row
            assert plain.loads(pickle.dumps([list(row)] * 3)) == [list(row)] * 3


def test_texts_of_every_size() -> None:
    for size in (0, 1, 255, 256, 70_000):
        for value in ("x" * size, "ü€😀" * size, b"x" * size, bytearray(b"x" * size), "\ud800" * size):
            for protocol in PROTOCOLS:
                assert plain.loads(pickle.dumps(value, protocol)) == value
            assert pickle.loads(plain.dumps([value, Inert("builtins", "int")])) == [value, int]


def test_large_containers_come_in_batches() -> None:
    for value in (
        list(range(5000)),
        set(range(5000)),
        {i: str(i) for i in range(5000)},
        {str(i): i for i in range(5000)},
        {(i, -i): None for i in range(5000)},
        {2**i for i in range(900)},
        {float(i) / 7: i for i in range(3000)},
        tuple(range(5000)),
        frozenset(map(str, range(3000))),
        [frozenset({(0, 0)}) for _ in range(200)],
        [{(0, 0): 1} for _ in range(200)],
    ):
        assert plain.loads(pickle.dumps(value)) == value
        assert plain.loads(pickle.dumps(value, 2)) == value


def test_sharing_survives() -> None:
    inner = [1, 2]
    value = plain.loads(pickle.dumps([inner, inner, {"a": inner}]))
    assert value[0] is value[1] is value[2]["a"]
    again = pickle.loads(plain.dumps([inner, inner, Inert("builtins", "int")]))
    assert again[0] is again[1]


def test_depth_up_to_the_limit() -> None:
    deep: Any = 1
    for _ in range(199):
        deep = [deep]
    assert plain.loads(pickle.dumps(deep)) == deep
    assert pickle.loads(plain.dumps([Inert("builtins", "int"), deep]))[1] == deep


class Text(str):
    """A str that is not only a str."""


@pytest.mark.parametrize(
    "value",
    [Text("x"), datetime.date(2020, 1, 1), int, len, object(), ValueError(), Ellipsis, {1: {2: print}}],
)
def test_what_is_not_plain_is_not_written(value: Any) -> None:
    for sent in (value, [value], [Inert("builtins", "int"), value]):
        with pytest.raises(PayloadError):
            plain.dumps(sent)


def test_what_is_too_deep_is_not_written() -> None:
    deep: Any = Inert("builtins", "int")
    flat: Any = 1
    for _ in range(100_000):
        deep, flat = [deep], [flat]
    for value in (deep, flat):
        with pytest.raises(PayloadError, match="nested too deeply"):
            plain.dumps(value)


# -- closed objects ----------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Box:
    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


class Named:
    def __new__(cls, *, name: str) -> "Named":
        made = super().__new__(cls)
        made.name = name
        return made

    def __getnewargs_ex__(self) -> Any:
        return (), {"name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


MINE = frozenset(f"{kind.__module__}.{kind.__qualname__}" for kind in (Colour, Point, Box, Named))

HARMLESS = [
    datetime.date(2020, 2, 29),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
    datetime.time(1, 2),
    datetime.timedelta(days=-3, seconds=5),
    decimal.Decimal("1.50"),
    fractions.Fraction(-1, 3),
    uuid.UUID(int=5),
    uuid.uuid1(),
    pathlib.PurePosixPath("/a/b"),
    pathlib.PosixPath("a/b"),
    pathlib.PosixPath(),
    pathlib.PureWindowsPath("c:/x"),
    1 + 2j,
    range(3, 10, 2),
    bytearray(b"x"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.deque([1, 2]),
    collections.deque([1, 2, 3], maxlen=3),
    collections.Counter("abca"),
    collections.defaultdict(int, {1: 2}),
    collections.defaultdict(set, {1: {2}}),
    collections.defaultdict(None, {1: 2}),
    {datetime.date(2020, 1, day): decimal.Decimal(day) for day in range(1, 30)},
    {uuid.UUID(int=n) for n in range(2000)},
    {datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC): pathlib.PurePosixPath("x")},
    {(1, "a"): frozenset({2})},
    [datetime.date(2020, 2, 29)] * 3,
]


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_harmless_objects_pass_through(value: Any, protocol: int) -> None:
    closed = plain.loads(pickle.dumps(value, protocol))
    written = plain.dumps(closed)
    assert pickle.loads(written) == value
    assert type(pickle.loads(written)) is type(value)
    assert pickle.loads(plain.dumps(plain.loads(written))) == value  # and again
    assert pickle.loads(plain.returned(written)) == ("#RETURN", value)


def test_time_zones_by_name_pass_through() -> None:
    zone = zoneinfo.ZoneInfo("UTC")
    moments = [datetime.datetime(2020, 1, 2, tzinfo=zone), datetime.datetime(2021, 1, 2, tzinfo=zone)]
    closed = plain.loads(pickle.dumps(moments))
    assert pickle.loads(plain.dumps(plain.loads(plain.dumps(closed)))) == moments


def test_protocol_2_writes_bytes_and_sets_as_calls() -> None:
    for value in (b"", b"ab\xff", bytearray(b"x\x80"), {1, (2, 3)}, frozenset(), {b"k": {b"m"}}):
        assert plain.loads(pickle.dumps(value, 2)) == value
    day = datetime.date(2020, 1, 1)
    assert pickle.loads(plain.dumps(plain.loads(pickle.dumps(day, 2)))) == day


@pytest.mark.parametrize(
    "raised", [ValueError("no"), KeyError("k"), OSError(2, "no", "f"), queue.Empty(), queue.Full()]
)
def test_exceptions_pass_through(raised: Exception) -> None:
    raised.note = "kept"  # type: ignore[attr-defined]
    for protocol in (3, 4, 5):
        got = pickle.loads(plain.dumps(plain.loads(pickle.dumps(raised, protocol))))
        assert (type(got), got.args, got.note) == (type(raised), raised.args, "kept")


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Point(1, 2),
        Box([1, {"a": datetime.date(2020, 1, 1)}]),
        Named(name="n"),
        {Point(1, 2): Colour.RED},
    ],
)
def test_listed_classes_pass_through_and_others_are_named(value: Any) -> None:
    for protocol in (4, 5) if isinstance(value, Named) else PROTOCOLS:  # else by functools.partial
        data = pickle.dumps(value, protocol)
        written = plain.dumps(plain.loads(data, allow=MINE))
        assert pickle.loads(written) == value
        assert pickle.loads(plain.dumps(plain.loads(written, allow=MINE))) == value
        with pytest.raises(PayloadError, match=r"test_plain\..*TASKYARD_ALLOW"):
            plain.loads(data)


def test_array_classes_come_with_their_parts() -> None:
    # What numpy 1 and 2 write for an array of one number, by hand, as numpy is not needed here.
    for core in ("core", "_core"):
        function = b"\x8c%cnumpy.%s.multiarray\x8c\x0c_reconstruct\x93" % (17 + len(core), core.encode())
        dtype = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f8\x89\x88\x87R"
        dtype += b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        array = (
            function
            + b"\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85C\x01b\x87R(K\x01K\x01\x85"
            + dtype
            + b"\x89C\x08"
            + bytes(8)
            + b"tb"
        )
        closed = plain.loads(b"\x80\x04" + array + b".", allow=frozenset({"numpy.ndarray"}))
        assert (closed.module, closed.name) == (f"numpy.{core}.multiarray", "_reconstruct")
        written = plain.dumps(closed)
        assert plain.dumps(plain.loads(written, allow=frozenset({"numpy.ndarray"}))) == written
        with pytest.raises(PayloadError):
            plain.loads(written)


def test_closed_objects_stay_closed() -> None:
    day = plain.loads(pickle.dumps(datetime.date(2020, 1, 1)))
    assert repr(day) == "<datetime.date, unopened>"
    assert day.args == (b"\x07\xe4\x01\x01",)
    with pytest.raises(AttributeError):
        day.name = "datetime"
    other = plain.loads(pickle.dumps(datetime.date(2020, 1, 1)))
    assert day != other
    assert len({day, other, day}) == 2


# -- replies -----------------------------------------------------------------------------------------------


@given(values, st.sampled_from(PROTOCOLS))
def test_returned_wraps_a_pickle_without_reading_it(value: Any, protocol: int) -> None:
    for pickled in (pickle.dumps(value, protocol), pickle._dumps(value, protocol)):
        reply = plain.returned(pickled)
        assert same(pickle.loads(reply), ("#RETURN", value))
        assert same(pickle._loads(reply), ("#RETURN", value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 254, 255, 256, 65_535, 65_536, 200_000])
def test_returned_keeps_frames_whole(size: int, protocol: int) -> None:
    text, blob = "t" * size, b"b" * size
    for value in (
        text,
        blob,
        [text, blob, text],
        [blob[:1000] + bytes([i % 256]) for i in range(300)],  # several frames
        {"a": blob, "b": [blob, text], "c": list(range(size))},
    ):
        for pickled in (pickle.dumps(value, protocol), pickle._dumps(value, protocol)):
            reply = plain.returned(pickled)
            assert pickle.loads(reply) == ("#RETURN", value)
            assert pickle._loads(reply) == ("#RETURN", value)
            assert plain.loads(reply) == ("#RETURN", value)


def test_returned_takes_nothing_but_a_pickle() -> None:
    for junk in (b"", b".", b"\x80\x04", pickle.dumps(1, 0), pickle.dumps(1)[:-1]):
        with pytest.raises(PayloadError):
            plain.returned(junk)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("queue.Empty", queue.Empty),
        ("queue.Full", queue.Full),
        ("AttributeError", AttributeError),
        ("KeyError", KeyError),
        ("OSError", OSError),
        ("RuntimeError", RuntimeError),
        ("TypeError", TypeError),
        ("ValueError", ValueError),
    ],
)
def test_errors_arrive_as_their_class(name: str, kind: type[Exception]) -> None:
    for args in ((), ("a",), ("text " * 20_000,), (5, "five"), ({"k": [1, 2]}, {"k": [1, 2]})):
        for load in (pickle.loads, pickle._loads):
            mark, raised = load(plain.error(name, *args))
            assert (mark, type(raised), raised.args) == ("#ERROR", kind, args)


def test_an_empty_queue_is_told_as_the_standard_library_tells_it() -> None:
    theirs = pickle.dumps(("#ERROR", queue.Empty()))
    assert b"_queue" in theirs
    assert b"\x8c\x06_queue\x8c\x05Empty\x93" in plain.error("queue.Empty")


def test_traceback() -> None:
    assert pickle.loads(plain.traceback("no\nway")) == ("#TRACEBACK", "no\nway")


# -- between Pythons ---------------------------------------------------------------------------------------

# Sends what it has in protocols 2 to 5 and its default one, then reads what comes back and compares.
PEER = """
import collections, datetime, decimal, fractions, os, pathlib, pickle, queue, struct, sys, uuid
values = [
    None, True, 0, -1, 2**40, 2**3000, 1.5, "text", "\\u20ac", b"bytes", bytearray(b"x"), (), (1,),
    (1, 2, 3, 4), [1, [2], {"a": None}], {1: 2, "k": (1.5, b"")}, {1, 2}, frozenset(["a"]), [0.5] * 3000,
    {"k": list(range(3000))}, datetime.date(2020, 1, 1), datetime.time(1),
    datetime.datetime(2020, 1, 1, 2, 3, tzinfo=datetime.timezone.utc),
    datetime.timedelta(1, 2, 3), decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=7),
    pathlib.PurePosixPath("/a/b"), pathlib.Path("x/y"), 1j, range(1, 9, 2), collections.OrderedDict(b=1, a=2),
    collections.deque([1, 2], 5), collections.Counter("aab"), collections.defaultdict(list, {1: [2]}),
    {datetime.date(2020, 1, 1): pathlib.PurePosixPath("a")}, ["s" * 70000, b"b" * 70000, "s" * 70000],
]
def send(data):
    sys.stdout.buffer.write(struct.pack("!i", len(data)) + data)
wanted = []
for value in values:
    for protocol in (2, 3, 4, 5, None):
        if not (protocol == 2 and isinstance(value, range)):  # xrange
            send(pickle.dumps(value, protocol))
            wanted.append(value)
sys.stdout.buffer.flush()
os.close(1)
data = sys.stdin.buffer.read()
wrong = []
for value in wanted:
    (size,) = struct.unpack_from("!i", data)
    mark, got = pickle.loads(data[4:4 + size])
    data = data[4 + size:]
    if mark != "#RETURN" or got != value or type(got) is not type(value):
        wrong.append((value, got))
while data:
    (size,) = struct.unpack_from("!i", data)
    mark, got = pickle.loads(data[4:4 + size])
    data = data[4 + size:]
    if mark != "#ERROR" or not isinstance(got, queue.Empty):
        wrong.append(got)
sys.exit("different: %r" % wrong[:3] if wrong else 0)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_values_go_to_and_fro(version: str) -> None:
    command = [python(version), "-I", "-c", PEER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as peer:
        assert peer.stdin is not None and peer.stdout is not None and peer.stderr is not None
        sent = peer.stdout.read()
        at = 0
        count = 0
        while at < len(sent):
            end = at + 4 + int.from_bytes(sent[at : at + 4])
            reply = plain.returned(plain.dumps(plain.loads(sent[at + 4 : end])))
            peer.stdin.write(len(reply).to_bytes(4) + reply)
            at = end
            count += 1
        empty = plain.error("queue.Empty")
        peer.stdin.write(len(empty).to_bytes(4) + empty)
        peer.stdin.close()
        said = peer.stderr.read().decode()
        assert peer.wait(20) == 0, said
    assert count > 180
