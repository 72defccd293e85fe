"""Writes commands.md: every command of `lora-clf` with its flags and their defaults, from what `--help` says.

    python docs/commands.py

tests/test_pages.py holds the page to the commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
HEAD = """<!-- Written by `python docs/commands.py`. -->

# Commands

Every command with its flags, as `lora-clf COMMAND --help` has them. Where no default is said there is none, or the
base, the strategy or the data decides.
"""


def page() -> str:
    """The whole page."""
    import typer

    from lora_clf.cli.app import COMMANDS

    lines = [HEAD]
    for name in COMMANDS:
        lines += section(typer.main.get_command(import_module(f"lora_clf.cli.{name}").app), f"lora-clf {name}")
    return "\n".join(lines)


def section(command: Any, name: str) -> Iterator[str]:
    """The lines of a command, or of each command in a group."""
    if commands := getattr(command, "commands", None):
        for part, each in commands.items():
            yield from section(each, f"{name} {part}")
        return
    positional = [each for each in command.params if each.param_type_name == "argument"]
    flags = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    yield f"## {name}\n"
    yield f"`{' '.join([name, *map(placeholder, positional)])}`\n"
    yield f"{plain(command.help)}\n"
    if positional:
        yield from (f"* `{placeholder(each)}`: {plain(each.help)}" for each in positional)
        yield ""
    panels: dict[str, list[Any]] = {"": []}
    for each in flags:
        panels.setdefault(getattr(each, "rich_help_panel", None) or "", []).append(each)
    for panel, members in panels.items():
        if panel:
            yield f"*{panel}*\n"
        yield from map(bullet, members)
        yield ""


def placeholder(argument: Any) -> str:
    """An argument as a usage line shows it."""
    shown = argument.metavar or argument.name.upper()
    return shown if argument.required else f"[{shown}]"


def bullet(flag: Any) -> str:
    """The line of a flag."""
    names = " / ".join([*flag.opts, *flag.secondary_opts])
    value = "" if flag.is_flag else f" {flag.metavar or flag.opts[0].rpartition('-')[2].upper()}"
    usual = flag.show_default and flag.default not in (None, False, ()) and not callable(flag.default)
    return f"* `{names}{value}`: {plain(flag.help)}{f' (default: {flag.default})' if usual else ''}"


def plain(text: str | None) -> str:
    """A help text on one line, without what Markdown would read as something else."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
