"""What the tests of executors run: also stand-ins for what CPython's tests take from the builtins."""

import os
import signal
import sys
import time
from pathlib import Path


def square(n):
    return n * n


def mul(x, y):
    return x * y


def capture(*args, **kwargs):
    return args, kwargs


def power(x, y):
    return pow(x, y)


def quotient(x, y):
    return divmod(x, y)


def text(value):
    return str(value)


def absolute(value):
    return abs(value)


def identity(value):
    return value


def sleep(seconds):
    time.sleep(seconds)


def sleep_and_raise(seconds):
    time.sleep(seconds)
    raise Exception("this is an exception")


class Thing:
    """Of a class that results may be of."""


def make_thing(_):
    return Thing()


class Custom(Exception):
    """Takes more arguments than it hands on, so it does not travel as it is."""

    def __init__(self, one, two):
        super().__init__(one)


def raise_value_error(text):
    raise ValueError(text)


def raise_custom():
    raise Custom(1, 2)


def leave(code):
    sys.exit(code)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def touch(path):
    with open(path, "a") as file:
        file.write("x")
    return path


def wait_for(path):
    """Busy until there is such a file; says by another that it has begun."""
    with open(f"{path}.begun", "a") as file:
        file.write("x")
    while not Path(path).exists():
        time.sleep(0.005)
    return path


def unsendable():
    return lambda: 1


def zero():
    return 0


def size(data):
    return len(data)
