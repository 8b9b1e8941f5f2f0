"""The ten squares that every tutorial begins with.

    taskyard submit squares:square --range 0:10 --wait --ordered
    taskyard submit squares:describe --range 0:10 --wait --ordered

The first returns numbers, the second lines for people.
"""


def square(n: int) -> int:
    """n times n."""
    return n * n


def describe(n: int) -> str:
    """The square as a line for people: "3 * 3 = 9"."""
    return f"{n} * {n} = {n * n}"
