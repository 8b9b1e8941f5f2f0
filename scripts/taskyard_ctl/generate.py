"""Writes what follows from the code: `.env.example`, docs/settings.md and docs/cli.md.

    python -m taskyard_ctl.generate

A test checks that they are current.
"""

import sys
from collections.abc import Iterator

import click

from taskyard import errors
from taskyard.settings import REGISTRY, Setting
from taskyard_ctl.cli import SECTIONS, cli
from taskyard_ctl.kitfiles import kit_folder

WIDTH = 96  # columns of help

_EXIT_CODES = (
    (errors.EXIT_DONE, "done"),
    (errors.EXIT_TASKS, "some tasks did not complete"),
    (errors.EXIT_USAGE, "the command, a setting, a function or an input is wrong; nothing was accepted"),
    (errors.EXIT_UNREACHABLE, "the master or the engine cannot be reached, or failed"),
    (errors.EXIT_REFUSED, "not let in: key, TLS or version"),
    (errors.EXIT_HOST, "a host failed"),
    (errors.EXIT_INTERNAL, "internal error: please report it"),
    (errors.EXIT_INTERRUPTED, "interrupted"),
)


def files() -> dict[str, str]:
    """The text of each generated file, by its path in the project."""
    return {
        ".env.example": "\n".join(_env_example()) + "\n",
        "docs/settings.md": "\n".join(_settings()) + "\n",
        "docs/cli.md": "\n".join(_commands()) + "\n",
    }


def _env_example() -> Iterator[str]:
    yield "# Every setting, with its default; generated from the registry in core/taskyard/settings.py."
    yield "# `taskyard init` makes a .env with a random key. An empty value means the default."
    for setting in REGISTRY:
        yield ""
        yield f"# {setting.text}"
        yield f"# In {setting.unit}; for {_roles(setting)}." + _or_file(setting)
        yield f"#{setting.variable}={setting.default}"


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Every setting is an environment variable. A yard's `.env` holds them for all that runs there; what"
    yield "the environment says comes before it, and an option of a command before both. An empty value means"
    yield "the default. An unknown `TASKYARD_` name is an error, so that a misspelt one is noticed."
    yield "Durations are in seconds. Generated from `core/taskyard/settings.py`."
    yield ""
    yield "| variable | default | in | for | |"
    yield "|---|---|---|---|---|"
    for setting in REGISTRY:
        default = f"`{setting.default}`" if setting.default else ""
        text = setting.text.replace("|", "\\|") + _or_file(setting)
        yield f"| `{setting.variable}` | {default} | {setting.unit} | {_roles(setting)} | {text} |"


def _roles(setting: Setting) -> str:
    return ", ".join({"ctl": "taskyard"}.get(role, role) for role in setting.roles.split())


def _or_file(setting: Setting) -> str:
    return f" Or its file, in {setting.variable}_FILE." if setting.secret else ""


def _commands() -> Iterator[str]:
    yield "# The command `taskyard`"
    yield ""
    yield "Progress goes to stderr, data to stdout. `--yard DIR` and `--verbose` go with every verb."
    yield "Generated from the commands themselves."
    yield ""
    yield "| exit code | means |"
    yield "|---|---|"
    for code, meaning in _EXIT_CODES:
        yield f"| {code} | {meaning} |"
    with _context(cli, None) as top:
        for title, verbs in SECTIONS.items():
            yield ""
            yield f"## {title}"
            for verb in verbs:
                command = cli.get_command(top, verb)
                assert command is not None
                with _context(command, top) as ctx:
                    yield ""
                    yield f"### {verb}"
                    yield ""
                    yield "```"
                    yield command.get_help(ctx).rstrip()
                    yield "```"


def _context(command: click.Command, parent: click.Context | None) -> click.Context:
    name = command.name if parent else "taskyard"
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )


def main() -> int:
    for name, text in files().items():
        path = kit_folder() / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            click.echo(f"wrote {name}", err=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
