"""The command `taskyard`: finds the verb, runs it, and turns errors into one line and an exit code.

A verb's module is imported only when it is called, and it imports what is heavy
only where it needs it, so that every command starts quickly.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskyard.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USAGE, TaskyardError

if TYPE_CHECKING:
    from taskyard_ctl.yard import YardFolder

EXIT_PIPE = 141  # 128 + SIGPIPE, as programs end whose reader has left

# The verbs by section, in the order of --help, and the module of each.
SECTIONS: dict[str, dict[str, str]] = {
    "Start and stop": {
        "init": "start", "up": "start", "scale": "scale", "down": "stop", "destroy": "stop",
    },
    "Work": {
        "run": "submit", "submit": "submit", "results": "results", "cancel": "jobs", "requeue": "jobs",
        "delete": "jobs", "check": "check",
    },
    "Look": {
        "status": "status", "dashboard": "dashboard", "logs": "logs", "drain": "scale", "bench": "bench",
    },
    "Keep": {"backup": "keep", "restore": "keep", "chaos": "chaos", "completion": "completion"},
    "Several hosts": {
        "deploy": "deploy", "rollback": "deploy", "join": "join", "doctor": "doctor", "certs": "certs",
        "tunnel": "tunnel",
    },
}  # fmt: skip
VERBS = {verb: module for section in SECTIONS.values() for verb, module in section.items()}


@dataclass(slots=True)
class Options:
    """What may stand before or after every verb."""

    yard: Path = Path()
    verbose: bool = False


class Verb(click.Command):
    """A command that takes the common options too, hidden, as people write them at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += common_options(hidden=True)


class Verbs(click.Group):
    """Verbs by section; a misspelt one is answered with the nearest."""

    command_class = Verb

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"taskyard_ctl.commands.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'taskyard --help' lists them all"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (verb.ljust(width), command.get_short_help_str(80))
                        for verb in verbs
                        if (command := self.get_command(ctx, verb)) is not None
                    ]
                )


def common_options(hidden: bool = False) -> list[click.Parameter]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None and param.name is not None:
            setattr(ctx.ensure_object(Options), param.name, value)

    return [
        click.Option(
            ["--yard"], type=click.Path(path_type=Path), metavar="DIR", callback=keep, expose_value=False,
            hidden=hidden, help="The yard's folder; the current one unless told.",
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, default=None, callback=keep, expose_value=False, hidden=hidden,
            help="Show the traceback of an error.",
        ),
    ]  # fmt: skip


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from taskyard import __version__

        click.echo(f"taskyard {__version__}")
        ctx.exit()


def yard_of(ctx: click.Context) -> "YardFolder":
    """The yard that a verb is about."""
    from taskyard_ctl.yard import YardFolder

    return YardFolder(ctx.ensure_object(Options).yard)


@click.group(
    cls=Verbs,
    name="taskyard",
    params=[
        *common_options(),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
            help="Show the version.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)  # fmt: skip
def cli() -> None:
    """Run a Python function over a long list of inputs, on many workers.

    \b
    Begin with:   taskyard run squares:square --range 0:10
    """


def say(text: str) -> None:
    """Progress, to stderr; quiet if nobody can read it any more."""
    click.echo(text, err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = Options()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get("_TASKYARD_COMPLETE"):
        cli.main(words, prog_name="taskyard")  # answers the shell, and exits
    try:
        # Not cli.main(), which would answer a Ctrl-C and a closed pipe in its own way.
        with cli.make_context("taskyard", words, obj=options) as ctx:
            code = cli.invoke(ctx)
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return EXIT_USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit does not fail too
        return EXIT_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place where all end
        text, code = _words(error)
        if options.verbose:
            import traceback

            traceback.print_exc()
        elif code == EXIT_INTERNAL:
            text += "; --verbose shows where, please report it"
        for line in text.splitlines():
            click.echo(f"taskyard: {line}", err=True)
        return code


def _words(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, TaskyardError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return str(error) or "interrupted", EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        return _usage(error), EXIT_USAGE
    return f"internal error: {type(error).__name__}: {' '.join(str(error).split())}", EXIT_INTERNAL


def _usage(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None or ctx.command is cli:
        return text
    return f"{ctx.info_name}: {text[:1].lower()}{text[1:]}; see '{ctx.command_path} --help'"
