"""The command line's assembly: the commands by name, each file imported when its command is called.

`lora-clf --help` shows every command from the table below without importing one, so it answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lora_clf.cli.failure import Interrupted, guard

COMMANDS = {
    "train": "Tune a base into your classifier with one strategy, and save it as a small adapter.",
    "evaluate": "Score a saved adapter on labelled data.",
    "predict": "Label texts: arguments, a file, or lines from stdin.",
    "compare": "Try strategies on the same footing and show what each costs and buys.",
    "strategies": "List the ways of tuning: what trains, how much of the base, which flags.",
    "bases": "List or fetch the bases.",
    "doctor": "Look into an adapter or a base for what goes wrong in silence.",
    "data": "Look into a data set, split it, find copies across its parts.",
    "cache": "List or clear the states of frozen layers that are kept on disk.",
    "adapters": "Work with saved adapters: list, inspect, verify, compare, convert.",
}


class CommandLine(TyperGroup):
    """The group of all commands; replaces a command's entry by the real one when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the file of the command that was asked for."""
        if args and args[0] in COMMANDS:
            file = import_module(f"lora_clf.cli.{args[0]}")
            self.commands[args[0]] = typer.main.get_command(file.app)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C gets past typer, which would say nothing."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error

    def main(self, args: Any = None, prog_name: str | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command line and exit; errors become one line each."""
        extra["standalone_mode"] = False
        extra["obj"] = [str(word) for word in (sys.argv[1:] if args is None else args)]  # for a command that repeats it
        run = super().main
        sys.exit(guard(lambda: run(args, "lora-clf", *more, **extra)))


app = typer.Typer(
    name="lora-clf",
    cls=CommandLine,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    invoke_without_command=True,
    help="Tune one pretrained base into your text classifier, every way there is; keep the winner as a file.",
)


def _version(asked: bool) -> None:
    if asked:
        from lora_clf import __version__

        typer.echo(f"lora-clf {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _entry() -> Callable[[], None]:
    def listed() -> None:
        """Stand in the help until the real command is imported."""

    return listed


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_entry())


def _open_streams() -> None:
    """Have what is told a closed stdout or stderr go nowhere, and not into the file that is opened next."""
    if None in (sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # of the lowest that are free
            pass
        os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def main() -> None:
    """The console script."""
    _open_streams()
    # A text with characters that the terminal cannot show must not end the program.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
