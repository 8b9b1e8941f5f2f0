"""`completion`: what a shell needs to complete verbs and options."""

import click

from taskyard_ctl.cli import Verb, cli

VARIABLE = "_TASKYARD_COMPLETE"


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete verbs and options.

    \b
    Examples:     eval "$(taskyard completion bash)"      in ~/.bashrc
                  eval "$(taskyard completion zsh)"       in ~/.zshrc, after compinit
                  taskyard completion fish > ~/.config/fish/completions/taskyard.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    # The text itself: source() of bash starts a bash to ask for its version.
    complete = kind(cli, {}, "taskyard", VARIABLE)
    click.echo(complete.source_template % complete.source_vars())
