"""`lora-clf cache list | clear`: the states of frozen layers that are kept on disk for later runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from lora_clf.cli.flags import Json
from lora_clf.cli.output import document, line, size, table

if TYPE_CHECKING:
    from lora_clf.inference.state_folder import Entry, StateFolder

app = typer.Typer(
    help="List or clear the states of frozen layers that are kept on disk.", no_args_is_help=True, add_completion=False
)


@app.command("list")
def list_states(as_json: Json = False) -> None:
    """List what is kept: base, where its frozen part ends, texts, size and last use; no texts are in it."""
    from lora_clf.inference.state_folder import SIZE_VARIABLE, disk_budget

    folder = _folder()
    entries = folder.entries()
    if as_json:
        document(
            {
                "folder": str(folder.path),
                "budget": disk_budget(),
                "size": sum(entry.size for entry in entries),
                "entries": [_facts(entry) for entry in entries],
            }
        )
        return
    if entries:
        table(
            ("base", "kept", "precision", "texts", "size", "last used"),
            [
                (
                    f"{entry.facts['base']} ({entry.facts['base_digest'][:12]})",
                    _kept(entry.facts),
                    entry.facts["precision"],
                    entry.texts,
                    size(entry.size),
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
                )
                for entry in entries
            ],
        )
        line()
    held = size(sum(entry.size for entry in entries))
    line(f"{held} of at most {size(disk_budget())} ({SIZE_VARIABLE}) in {folder.path}")


@app.command()
def clear(as_json: Json = False) -> None:
    """Drop all of it; later runs compute again what they need."""
    files, count = _folder().clear()
    if as_json:
        document({"files": files, "size": count})
    else:
        line(f"Dropped {files:,} file{'' if files == 1 else 's'}, {size(count)}.")


def _folder() -> StateFolder:
    """The folder, whatever its budget is now."""
    from lora_clf.inference.state_folder import StateFolder, disk_budget, states_path

    return StateFolder(states_path(), disk_budget())


def _kept(facts: dict[str, Any]) -> str:
    """What the states are, for people."""
    return f"pooled ({facts['pooled']})" if facts["pooled"] else f"behind block {facts['blocks']}"


def _facts(entry: Entry) -> dict[str, Any]:
    """What is known of an entry, ready for JSON."""
    names = ("base", "base_digest", "blocks", "pooled", "precision", "threads", "torch", "transformers")
    return {
        **{name: entry.facts.get(name) for name in names},
        "texts": entry.texts,
        "size": entry.size,
        "files": entry.files,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.used)),
    }
