"""How much a peer gets in one answer."""

from taskyard.messages import Results, Row, Rows
from taskyard_master.reading import FIRST_SPACE, Reading

MANY = 4 << 20
ROW = Row(1, 0, 1, "completed", 0, 1, "w", "h", 0.0, 0.0, b"")


def asked(reading: Reading, cursor: int, space: int = MANY) -> int:
    """The space that a request gets, whose answer ends at `cursor` + 1."""
    request = Results(1, "j", cursor, space=space)
    reading.limit(request)
    reading.answered(request, Rows(1, [ROW], cursor + 1, False))
    return request.space


def test_who_goes_on_where_an_answer_ended_gets_twice_as_much_up_to_what_it_asks_for() -> None:
    reading = Reading()
    spaces = [asked(reading, cursor) for cursor in range(10)]
    assert spaces == [min(FIRST_SPACE << n, MANY) for n in range(10)]
    assert asked(reading, 10, 1000) == 1000
    assert asked(reading, 11) == MANY


def test_who_asks_without_reading_never_gets_more() -> None:
    reading = Reading()
    assert {asked(reading, 0) for _ in range(5000)} == {FIRST_SPACE}


def test_an_answer_counts_once_and_one_without_rows_does_not() -> None:
    reading = Reading()
    asked(reading, 0)
    assert [asked(reading, 1) for _ in range(3)] == [2 * FIRST_SPACE] * 3
    reading = Reading()
    request = Results(1, "j", 0)
    reading.answered(request, Rows(1, [], 0, False))
    assert asked(reading, 0) == FIRST_SPACE


def test_it_remembers_only_so_much() -> None:
    reading = Reading()
    for cursor in range(0, 20_000, 2):
        asked(reading, cursor)
    assert len(reading._ends) == 1 << 10
    assert reading._space == FIRST_SPACE
