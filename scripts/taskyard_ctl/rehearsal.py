"""`submit --dry-run`: the first calls as they would be made, and nothing is submitted."""

from collections.abc import Callable, Collection, Generator, Iterator
from itertools import islice
from typing import Any

import click

from taskyard.errors import EXIT_DONE, UnreachableError
from taskyard_ctl import shapes
from taskyard_ctl.cli import say
from taskyard_ctl.submission import Request, check_function, items_of
from taskyard_ctl.yard import YardFolder

SHOWN = 5
ARGUMENT_LIMIT = 200  # characters of an argument that people see


def rehearse(folder: YardFolder, request: Request, containers: Callable[[], bool]) -> int:
    """Print the first calls; reads no more of the inputs than that takes."""
    items = items_of(folder, request, containers)
    first = list(islice(items, SHOWN + 1))
    if isinstance(items, Generator):
        items.close()  # and with it the file
    try:
        with folder.connect() as yard:
            check_function(folder, yard, request.function)
    except UnreachableError as fault:
        say(f"whether a worker can run {request.function} is not known: {fault}")
    for args, kwargs in _calls(first[:SHOWN], request.calls):
        if request.as_json:
            call = {"function": request.function, "args": list(args), "kwargs": kwargs}
            click.echo(shapes.line(call), nl=False)
        else:
            click.echo(f"{request.function}({_arguments(args, kwargs)})")
    more = len(first) > SHOWN
    count = f"{len(items):,}" if isinstance(items, Collection) else "more" if more else f"{len(first):,}"
    shown = f"the first {SHOWN} of {count} calls" if more else f"all {count} calls"
    say(f"dry run: {shown}; nothing was submitted")
    return EXIT_DONE


def _calls(items: list[Any], calls: bool) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for item in items:
        yield item if calls else ((item,), {})


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= ARGUMENT_LIMIT else f"{text[:ARGUMENT_LIMIT]}..."
