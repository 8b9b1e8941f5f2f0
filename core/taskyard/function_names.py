"""From a function to the name that it travels by; what has no such name is told why."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from taskyard.errors import FunctionError


def function_name(function: str | Callable[..., Any]) -> str:
    """Return "module:function" for a name or a function; "" stays "".

    Raises FunctionError for what a worker could not find again: it looks for a function by its name
    in a module of the tasks folder, code does not travel.
    """
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if function and not (
            colon and name.isidentifier() and all(p.isidentifier() for p in module.split("."))
        ):
            raise FunctionError(f"{function!r} names no function: write module:function")
        return function
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", None) or ""
    if not isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        raise FunctionError(
            f"{function!r} is no plain function: define one in a module of the tasks folder that calls it"
        )
    if "<lambda>" in name:
        why = "a lambda has no name that a worker could find it by"
    elif "<locals>" in name:
        why = f"{name.rpartition('.')[2]} is defined inside another function"
    elif "." in name:
        why = f"{name} is a method"
    elif module == "__main__":
        why = f"{name} is defined in the program itself, which workers do not have"
    else:
        return f"{module}:{name}"
    raise FunctionError(f"{why}: put it at the top of a module of the tasks folder, with def")
