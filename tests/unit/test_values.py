"""User values: they come back as they were, cost little, and run nothing on the way."""

import base64
import contextlib
import copyreg
import datetime
import enum
import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import threading
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskyard import batch, unpickle, values
from taskyard.allow import STANDARD, Allow
from taskyard.errors import GapError, PayloadError, TaskFailed
from taskyard.jsonable import bounded_repr
from taskyard.messages import Failure

Point = namedtuple("Point", "x y")


@dataclass
class Box:
    """What a user's class looks like: BUILD sets its state."""

    size: int
    label: str = "box"

    class Lid:
        colour = "red"


@dataclass(slots=True)
class Slotted:
    size: int


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Odd(Exception):
    """Does not survive pickling: its parameters are not its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


class Known(Exception):
    pass


MINE = Allow([Point, Box, Slotted, Colour])

HARMLESS = [
    None, True, 0, -1, 255, 256, 1 << 40, -(1 << 200), 1.5, float("inf"), "", "text", "cibPQR", "ü\U0001f600",
    b"", b"cibPQR\x82\x93", (), (1,), (1, 2, 3, 4), [], [1, [2]], {}, {"a": [1]}, {1: {2: 3}},
    {1, 2}, frozenset((1, 2)), 2 + 3j, range(3, 10, 2), bytearray(b"abc"), slice(1, 2),
    datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, 1, 2), datetime.time(1, 2),
    datetime.timedelta(days=3), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.timezone(datetime.timedelta(hours=2)),
    Decimal("1.10"), Fraction(1, 3), uuid.UUID(int=5),
    Path("/a/b"), PurePosixPath("x"), PureWindowsPath("c:/b"),
    OrderedDict(a=1), deque([1, 2], maxlen=3), Counter("abracadabra"), defaultdict(list, {"b": [1]}),
    ValueError("no", 3), OSError(2, "No such file", "/b"), GapError("gap", 4), KeyError("k"),
    json.JSONDecodeError("m", "d", 0), subprocess.CalledProcessError(3, ["x"]),
]  # fmt: skip


def same(left: object, right: object) -> bool:
    if isinstance(left, Exception):
        return type(left) is type(right) and left.args == right.args and vars(left) == vars(right)
    return type(left) is type(right) and left == right


@pytest.mark.parametrize("value", HARMLESS, ids=repr)
@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_harmless_values_come_back(value, protocol):
    assert same(values.loads(pickle.dumps(value, protocol)), value)
    assert same(values.loads(values.dumps(value)), value)


def test_a_block_of_all_kinds_comes_back_in_order():
    payloads = values.dumps_many(HARMLESS)
    for block, count in (
        (batch.pack(payloads), len(payloads)),
        (batch.pack(payloads * 7), 7 * len(payloads)),
    ):
        back = values.loads_block(block, count)
        assert len(back) == count
        assert all(same(a, b) for a, b in zip(back, HARMLESS * 7, strict=False))


def test_a_slice_of_a_block_comes_back():
    block = batch.cut(batch.pack(values.dumps_many(range(100))), 100, 40, 60)
    assert values.loads_block(block, 20) == list(range(40, 60))


def test_a_block_of_mixed_protocols_comes_back():
    """Protocol 4 and later count on an empty memo, so they are not read together with others."""
    texts = [["a", "a"], ["b", "b"], {"c": "c"}, ("d", "d"), 7]
    payloads = [pickle.dumps(text, 2 + i % 4) for i, text in enumerate(texts * 5)]
    assert values.loads_block(batch.pack(payloads), len(payloads)) == texts * 5


def test_a_small_value_costs_little():
    """A no-op task is to cost the journal less than forty bytes, its result and offsets included."""
    assert all(len(values.dumps(n)) <= 9 for n in (0, 1 << 20, (1 << 31) - 1, None, True))
    assert len(values.dumps(1.5)) == 12


def test_values_of_shared_and_cyclic_parts_come_back():
    shared = ["x"]
    cyclic: list = [shared, shared]
    cyclic.append(cyclic)
    for back in (
        values.loads(values.dumps(cyclic)),
        values.loads_block(batch.pack([values.dumps(cyclic)] * 8), 8)[7],
    ):
        assert back[0] is back[1]
        assert back[2] is back


def test_time_zones_come_back():
    there = datetime.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("UTC"))
    back = values.loads(values.dumps(there))
    assert back == there
    assert back.tzinfo is there.tzinfo


# ---------------------------------------------------------------- classes that are listed


@pytest.mark.parametrize(
    "value", [Point(1, "b"), Box(3), Slotted(4), Colour.RED, [Box(1), Point(1, 2)]], ids=repr
)
def test_listed_classes_come_back_and_others_are_named(value):
    for protocol in (3, 4, 5):
        data = pickle.dumps(value, protocol)
        assert values.loads(data, MINE) == value
        assert values.loads_block(batch.pack([data] * 9), 9, MINE) == [value] * 9
        with pytest.raises(PayloadError, match=r"tests?.*is not taken.*TASKYARD_ALLOW|test_values"):
            values.loads(data)


def test_a_whole_module_is_listed_by_a_star_but_only_what_it_defines():
    allow = Allow([f"{__name__}.*"])
    assert values.loads(values.dumps(Box(1)), allow) == Box(1)
    with pytest.raises(PayloadError):
        allow.find(__name__, "threading.Thread")
    with pytest.raises(PayloadError):
        allow.find(__name__, "os")
    with pytest.raises(PayloadError):
        allow.find(__name__, "same")  # a function


def test_nested_classes_need_their_own_entry():
    data = values.dumps(Box.Lid())
    with pytest.raises(PayloadError, match=r"Box\.Lid"):
        values.loads(data, Allow([Box]))
    assert type(values.loads(data, Allow([Box, Box.Lid]))) is Box.Lid
    assert type(values.loads(pickle.dumps(Box.Lid(), 4), Allow([Box.Lid]))) is Box.Lid


def test_a_listed_name_that_is_no_class_or_makes_classes_is_refused():
    for name in ("os.system", "builtins.type", "abc.ABCMeta", "no.such.module.Name"):
        module, _, attribute = name.rpartition(".")
        with pytest.raises(PayloadError):
            Allow([name]).find(module, attribute)


# ---------------------------------------------------------------- gadgets


class Reduce:
    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self):
        return self.parts


CANARY = "/nonexistent/taskyard-canary"
GADGETS = [
    (os.system, (f"touch {CANARY}",)),
    (eval, ("1",)),
    (exec, ("1",)),
    (__import__, ("os",)),
    (getattr, ("text", "join")),
    (getattr, (Counter, "update")),
    (getattr, (datetime.datetime, "now")),
    (setattr, (Counter, "x", 1)),
    (open, (CANARY, "w")),
    (subprocess.Popen, (["true"],)),
    (type, ("X", (), {})),
    (map, (print, [1])),
    (copyreg._reconstructor, (Box, object, None)),
    (pickle.loads, (b"N.",)),
    (io.open, (CANARY, "w")),
    (threading.Thread, ()),
    (sys.exit, (3,)),
    (Box, (1,)),
]


def handmade(module: str, name: str, argument: bytes = b"(S'x'\ntR") -> list[bytes]:
    raw = f"{module}\n{name}\n".encode()
    short = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return [
        b"\x80\x03c" + raw + argument + b".",
        b"\x80\x02(i" + raw + b".",
        b"\x80\x04" + short + b"\x93" + argument + b".",
        b"\x80\x04" + short + b"\x93)\x81.",
        b"\x80\x04" + short + b"\x93)}\x92.",
        b"\x80\x03(c" + raw + b"o.",
        b"\x80\x03]c" + raw + b"a.",
    ]


def hostile() -> list[bytes]:
    made = [pickle.dumps(Reduce(*gadget), protocol) for gadget in GADGETS for protocol in range(6)]
    for module, name in (
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("__builtin__", "eval"),
        ("builtins", "type"), ("builtins", "getattr.__call__"), ("builtins", "str.join"),
        ("collections", "Counter.update"), ("taskyard.errors", "TaskyardError.__init__"),
        ("functools", "partial"), ("copyreg", "__newobj__"), ("operator", "attrgetter"),
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"), ("builtins", "object"), ("collections", "_sys.exit"),
        ("datetime", "sys.exit"), ("uuid", "os.system"), ("", ""), ("builtins", "\u00e9"),
    ):  # fmt: skip
        made += handmade(module, name)
    made += [b"\x80\x03\x82\x01.", b"\x80\x03\x83\x01\x00.", b"\x80\x03\x84\x01\0\0\0.", b"P0\n.", b"NQ."]
    return made


@pytest.fixture
def watched():
    """Names that were looked up by an unrestricted unpickler while this ran, and commands started."""
    seen: list[str] = []
    on = [True]

    def hook(event: str, arguments: tuple) -> None:
        if on[0] and event in ("pickle.find_class", "os.system", "subprocess.Popen"):
            seen.append(event)

    sys.addaudithook(hook)
    yield seen
    on[0] = False


def test_gadgets_are_refused_at_every_position(watched):
    good = values.dumps(1)
    for data in hostile():
        for attempt in (
            lambda data=data: values.loads(data),
            lambda data=data: values.loads_block(batch.pack([data]), 1),
            lambda data=data: values.loads_block(batch.pack([good] * 5 + [data] + [good] * 5), 11),
            lambda data=data: values.parse(b"c" + data),
            lambda data=data: values.parse(b"f" + data),
            lambda data=data: values.parse_block(batch.pack([data] * 5), 5),
        ):
            with pytest.raises(PayloadError):
                attempt()
        failure = Failure("raised", "X", "said", exception=data)
        assert type(values.load_exception(failure)) is TaskFailed
    assert watched == []


@pytest.mark.parametrize("target", [Counter, Fraction, Path, Box, Colour.RED, Colour, uuid.UUID])
def test_no_value_can_change_a_class(target):
    """BUILD would set attributes of whatever lies on the stack, classes and enum members too."""
    owner = target if isinstance(target, type) else type(target)
    name = f"c{owner.__module__}\n{owner.__qualname__}\n".encode()
    push = name if owner is target else name + b"K\x01\x85R"
    for state in (b"N}X\x04\0\0\0evilK\x01s\x86", b"}X\x04\0\0\0evilK\x01s", b"N}X\x08\0\0\0__hash__Ns\x86"):
        data = b"\x80\x03" + push + state + b"b."
        before = dict(vars(target))
        for attempt in (
            lambda data=data: values.loads(data, MINE),
            lambda data=data: values.loads_block(batch.pack([data] * 5), 5, MINE),
        ):
            with pytest.raises(PayloadError):
                attempt()
        assert dict(vars(target)) == before
        assert not hasattr(target, "evil")


def test_the_stand_in_for_getattr_cannot_be_changed():
    data = b"\x80\x03cbuiltins\ngetattr\nN}X\x06\0\0\0_allowNs\x86b."
    with pytest.raises(PayloadError):
        values.loads(data)
    assert values.loads(values.dumps(datetime.datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC"))))


def reachable(data: bytes) -> set[str]:
    """Opcodes of a pickle, as far as it can be read, that name something or ask a hook."""
    names = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
    found = set()
    with contextlib.suppress(Exception):  # a broken pickle, up to where it breaks
        for opcode, _, _ in pickletools.genops(data):
            found |= {opcode.name} & names
    return found


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_the_short_cut_takes_names_nothing(data):
    """Mutated pickles, and any bytes: where plain pickle.loads is used, no opcode reaches a name."""
    seed = data.draw(
        st.binary(max_size=60)
        | plain_values.map(lambda v: pickle.dumps(v, 3))
        | st.sampled_from(hostile())
        | st.sampled_from(HARMLESS).map(values.dumps)
    )
    raw = bytearray(seed)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4)):
        if raw:
            raw[place % len(raw)] = byte
    if not unpickle._REACHES(bytes(raw)):
        assert not reachable(bytes(raw))


def test_the_short_cut_looks_for_every_opcode_that_names_something():
    codes = {
        op.code.encode("latin-1")
        for op in pickletools.opcodes
        if op.name in {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
    }
    assert len(codes) == 8
    assert {bytes([b]) for b in range(256) if unpickle._REACHES(bytes([b]))} == codes


@settings(max_examples=300, deadline=None)
@given(st.lists(plain_values, min_size=1, max_size=12))
def test_any_plain_values_come_back_from_a_block(items):
    assert values.loads_block(batch.pack(values.dumps_many(items)), len(items)) == items


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=30), min_size=4, max_size=8))
def test_any_bytes_raise_only_payload_errors(items):
    block = batch.pack(items)
    for read in (values.loads_block, values.parse_block):
        with contextlib.suppress(PayloadError):
            assert len(read(block, len(items))) == len(items)


def test_a_block_says_which_value_is_at_fault():
    block = batch.pack([values.dumps(n) for n in range(5)] + [b"", b"\x80\x03junk"])
    with pytest.raises(PayloadError, match="cannot be read"):
        values.loads_block(block, 7)


# ---------------------------------------------------------------- what does not travel


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda: 1, "tasks folder"),
        (threading.Lock(), "lock"),
        ([1, {"k": threading.Lock()}], "type list"),
        ((n for n in ()), "generator"),
        (sys, "module"),
    ],
)
def test_what_does_not_travel_is_named_with_a_way_out(value, said):
    for attempt in (lambda: values.dumps(value), lambda: values.dumps_many([1, value])):
        with pytest.raises(PayloadError, match=said) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert "does not travel" in str(caught.value)


def test_a_value_beyond_the_limit_is_sent_to_shared_storage():
    assert values.dumps(b"x" * 100, 200)
    for attempt in (
        lambda: values.dumps(b"x" * 300, 200),
        lambda: values.dumps_many([1, b"x" * 300], 200),
        lambda: values.call((b"x" * 300,), {}, 200),
        lambda: values.call_of("m:f", (b"x" * 300,), {}, 200),
    ):
        with pytest.raises(PayloadError, match=r"shared storage.*path"):
            attempt()


def test_a_reduce_that_raises_is_a_payload_error():
    class Bad:
        def __reduce__(self):
            raise RuntimeError("never\nmind")

    with pytest.raises(PayloadError, match="RuntimeError: never mind"):
        values.dumps(Bad())


# ---------------------------------------------------------------- payloads


@pytest.mark.parametrize(
    ("payload", "call"),
    [
        (values.dumps(5), (None, (5,), {})),
        (values.call((1, "c"), {"k": 2}), (None, (1, "c"), {"k": 2})),
        (values.call((), {}), (None, (), {})),
        (values.call_of("m:f", (1,), {}), ("m:f", (1,), {})),
    ],
)
def test_payloads_are_parsed(payload, call):
    assert values.parse(payload) == call
    for count in (1, 3, 4, 50):
        assert values.parse_block(batch.pack([payload] * count), count) == [call] * count


def test_a_block_of_mixed_payloads_is_parsed():
    payloads = [values.dumps(5), values.call((1,), {}), values.call_of("m:f", (), {"a": 1})] * 3
    assert values.parse_block(batch.pack(payloads), 9) == [values.parse(payload) for payload in payloads]


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"c", b"cjunk", b"c" + values.dumps(1), b"c" + values.dumps(([], {})),
     b"f" + values.dumps((1, 2)), b"c" + values.dumps(((), {}, 3)), b"f" + values.dumps((1, (), {})),
     b"c" + values.dumps(((), []))],
)  # fmt: skip
def test_what_is_no_payload_is_refused(payload):
    for attempt in (lambda: values.parse(payload), lambda: values.parse_block(batch.pack([payload] * 4), 4)):
        with pytest.raises(PayloadError):
            attempt()


# ---------------------------------------------------------------- exceptions


def failure_of(error: BaseException, **more: object) -> Failure:
    return Failure(
        "raised", values.name_of(type(error)), str(error), exception=values.dump_exception(error), **more
    )


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("k"), OSError(2, "gone", "b"), GapError("gap", 3)]
)
def test_known_exceptions_come_back_as_themselves_with_the_remote_traceback(error):
    back = values.load_exception(failure_of(error, traceback="Traceback ...\n  task.py"))
    assert same(back, error)
    assert "task.py" in str(back.__cause__)


def test_notes_travel():
    error = ValueError("no")
    error.add_note("while counting")
    assert values.load_exception(failure_of(error)).__notes__ == ["while counting"]


def test_unknown_exceptions_come_back_as_text():
    back = values.load_exception(failure_of(Known("why"), traceback="deep"))
    assert type(back) is TaskFailed
    assert str(back).endswith("Known: why")
    assert "deep" in str(back.__cause__)
    assert type(values.load_exception(failure_of(Known("why")), Allow([Known]))) is Known


def test_exceptions_that_do_not_survive_are_text_from_the_start():
    assert values.dump_exception(Odd(3, "x")) == b""
    assert values.dump_exception(SystemExit(3)) == b""
    assert values.dump_exception(ValueError(threading.Lock())) == b""
    assert values.dump_exception(ValueError("x" * 100_000)) == b""
    assert str(values.load_exception(failure_of(Odd(3, "x")))).endswith("Odd: 3 x")


def test_a_failure_without_exception_says_its_reason():
    assert (
        str(values.load_exception(Failure("timed out", "", "timed out after 3 s"))) == "timed out after 3 s"
    )
    assert "lost" in str(values.load_exception(Failure("lost", "", "")))


def test_a_value_in_place_of_an_exception_is_text():
    failure = Failure("raised", "X", "said", exception=values.dumps([1]))
    assert str(values.load_exception(failure)) == "X: said"


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (True, True), (3, 3), (1.5, 1.5), ("ü", "ü"), ([1, (2,)], [1, [2]]), ((1, 2), [1, 2]),
        ({"a": 1, 2: b""}, {"a": 1, "2": {"$bytes": ""}}), (Point(1, 2), [1, 2]),
        (b"\0\xff", {"$bytes": base64.b64encode(b"\0\xff").decode()}),
        (float("nan"), {"$type": "float", "$repr": "nan"}),
        ({1, 2}, {"$type": "set", "$repr": "{1, 2}"}),
        (Decimal("1.1"), {"$type": "decimal.Decimal", "$repr": "Decimal('1.1')"}),
        ({(1, 2): 3}, {"$type": "dict", "$repr": "{(1, 2): 3}"}),
    ],
)  # fmt: skip
def test_values_as_json_for_people(value, shown):
    assert values.to_json(value) == shown
    json.dumps(values.to_json(value), allow_nan=False)


def test_json_of_anything_is_bounded_and_never_raises():
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    cyclic: list = []
    cyclic.append(cyclic)
    for value in (Bad(), cyclic, {"a": Bad()}, set(range(10_000))):
        assert len(json.dumps(values.to_json(value))) < 3000
    assert "RuntimeError" in bounded_repr(Bad())
    assert len(bounded_repr("x" * 5000, 10)) == 13


# ---------------------------------------------------------------- weight


def test_slots_get_values_without_msgspec():
    code = "import sys, taskyard.values; sys.exit('msgspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_list_is_remembered():
    assert STANDARD.find("decimal", "Decimal") == (Decimal, True)
    assert STANDARD.find("fractions", "Fraction") == (Fraction, False)
