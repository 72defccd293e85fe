"""`lora-clf bases list | fetch`: which bases there are, which are here, and fetching one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lora_clf.cli.flags import Json
from lora_clf.cli.output import document, line, note, size, table
from lora_clf.cli.quiet import quiet_third_parties

app = typer.Typer(help="List or fetch the bases.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_bases(as_json: Json = False) -> None:
    """List the bases that have a short name: size, whether it is here, where it comes from."""
    from lora_clf.base.sources import FOLDERS_VARIABLE, entries

    found = entries()
    if as_json:
        document([asdict(entry) for entry in found])
        return
    table(
        ("base", "parameters", "size", "here", "source", "pooling", "tokens", "licence"),
        [
            (
                entry.name,
                entry.parameters,
                size(entry.size_bytes),
                entry.here,
                entry.source,
                entry.pooling,
                entry.max_length,
                entry.licence,
            )
            for entry in found
        ],
    )
    line()
    line(f"Also: any folder in transformers' format, any Hub id, and the folders under {FOLDERS_VARIABLE}.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A base's name or a Hub id.")],
    revision: Annotated[str | None, typer.Option(help="A Hub revision, where NAME is a Hub id.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a base, so that everything works without a network afterwards."""
    quiet_third_parties()
    from lora_clf.base.sources import locate

    located = locate(name, revision, progress=note)
    if as_json:
        document({"name": located.name, "folder": str(located.folder), "here": True})
    else:
        line(f"{located.name} is here: {located.folder}")
