"""`lora-clf adapters`: the commands about saved adapters; list and inspect are here, the others beside it.

A sibling (`adapters_check.py`, `adapters_make.py`) has an ``app`` of its own, whose commands are taken in at the end.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.adapters.disk import folder_bytes
from lora_clf.cli.adapters_check import app as check_app
from lora_clf.cli.adapters_make import app as make_app
from lora_clf.cli.flags import Json
from lora_clf.cli.output import document, line, note, percent, size, table
from lora_clf.cli.scores import show_scores

if TYPE_CHECKING:
    from lora_clf.adapters.header import Header

app = typer.Typer(
    help="Work with saved adapters: list, inspect, verify, compare, convert.",
    no_args_is_help=True,
    add_completion=False,
)
HOME = Path("my-adapters")


@app.command("list")
def list_adapters(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look.")] = HOME,
    as_json: Json = False,
) -> None:
    """List the adapters in a folder: task, labels, base, strategy, size and test score of each."""
    from lora_clf.adapters.file import list_adapters as find
    from lora_clf.errors import AdapterError, AdapterNotFoundError

    if not folder.is_dir():
        raise AdapterNotFoundError(
            f"There is no folder {str(folder)!r}. `lora-clf train` makes {HOME}; or name another folder."
        )
    found = []
    for place, header in find(folder):
        if isinstance(header, AdapterError):  # one broken adapter must not hide the others
            note(str(header) if str(place) in str(header) else f"{place} cannot be used: {header}")
        else:
            found.append(facts(place, header))
    if as_json:
        document(found)
        return
    if not found:
        line(f"No adapters in {folder}.")
        return
    table(
        ("adapter", "labels", "base", "strategy", "size", "test score", "test macro-F1"),
        [
            (
                each["adapter"],
                _short(each["labels"]),
                each["base_name"],
                each["strategy"],
                size(each["adapter_bytes"]),
                _score(each["task"], each["metrics"].get("test", {})),
                percent(each["metrics"].get("test", {}).get("macro_f1")),
            )
            for each in found
        ],
    )


@app.command()
def inspect(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    as_json: Json = False,
) -> None:
    """Show what a person wants to know before using an adapter; reads its file, held to its digest, not the base."""
    from lora_clf.adapters.file import read_folder
    from lora_clf.adapters.origin import adapter_folder
    from lora_clf.tasks import kind_of

    folder = adapter_folder(adapter)
    found = {**facts(folder, read_folder(folder)[0]), "adapter": str(adapter)}
    if as_json:
        document(found)
        return
    settings = ", ".join(f"{name} {_value(value)}" for name, value in found["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items()))
    table(
        ("what", "value"),
        [
            ("adapter", found["adapter"]),
            ("task", f"{found['task']}, {_counted(found['labels'])}"),
            ("positive label", found["positive_label"]),
            ("base", f"{found['base_name']} ({found['architecture']}, digest {found['base_digest'][:12]})"),
            ("base is here", _where(found["base_name"])),
            ("strategy", f"{found['strategy']}{f' ({settings})' if settings else ''}"),
            ("parameters", f"{found['parameters']:,}"),
            ("size", f"{size(found['adapter_bytes'])} ({found['dtypes']})"),
            ("head, pooling", f"{found['head']}, {found['pooling']}"),
            ("tokens read", _read(found)),
            ("threshold", _found(found, "threshold")),
            ("temperature", _found(found, "temperature")),
            ("data", f"{found['data_name']} ({found['licence'] or 'licence not known'})"),
            ("seed", str(found["seed"])),
            ("precision", found["precision"]),
            ("versions", versions),
            ("digest", found["digest"]),
        ],
    )
    line()
    task = kind_of(found["task"])
    keys = {each.key for each in task.shown if each.table and not each.positive}
    scores = {name: part for name, part in found["metrics"].items() if keys <= part.keys()}
    if scores:
        show_scores(task, scores, found["positive_label"])
    quoted = shlex.quote(str(adapter))
    line(f'Use it:   lora-clf predict {quoted} "..."')
    line(f"In Python: load_adapter({str(adapter)!r}, load_base({found['base_name']!r})).predict([...])")
    line(f"Check it: lora-clf adapters verify {quoted}")


def _score(task: str, scores: Mapping[str, Any]) -> str:
    """The score by which a task is judged, with its name."""
    from lora_clf.tasks import kind_of

    measure = kind_of(task).primary
    value = scores.get(measure.key)
    if not isinstance(value, (int, float)):
        return percent(None)
    return f"{measure.title} {percent(value) if measure.share else f'{value:.3g}'}"


def _found(facts: dict[str, Any], name: str) -> str | None:
    """A threshold or a temperature, and the validation rows behind it where they are known."""
    value, behind = facts[name], facts["training"].get(name)
    if value is None:
        return None
    rows = behind.get("rows") if isinstance(behind, dict) else None
    if not isinstance(rows, int):
        return f"{value:g}"
    text = f"{value:g}, found on {rows:,} validation rows"
    bound, positives = behind.get("precision_bound"), behind.get("positives")
    if isinstance(bound, float) and isinstance(positives, int):
        text += f", {positives:,} of them {facts['positive_label']}; precision there at least {percent(bound)} (95 %)"
    return text


def _read(found: dict[str, Any]) -> str:
    """How much of a text is read."""
    from lora_clf.base.reading import Reading

    reading = Reading.restored(found.get("reading") or {})
    if reading.whole:
        return f"all, {found['max_length']:,} a chunk; {reading}"
    cleaned = f"; {reading}" if found.get("reading") else ""
    return f"{found['max_length']:,}, cut on the {found['truncation']}{cleaned}"


def _where(base: str) -> str:
    """Whether a base is here by its name, and what to do where it is not."""
    from lora_clf.base.catalogue import CATALOGUE
    from lora_clf.base.shelf import is_here
    from lora_clf.base.sources import FOLDERS_VARIABLE

    if is_here(base):
        return "yes"
    if base in CATALOGUE or "/" in base:
        return f"no; lora-clf bases fetch {base}"
    return f"not by this name; it is found by digest in {FOLDERS_VARIABLE}, or give --base FOLDER"


def facts(adapter: Path, header: Header) -> dict[str, Any]:
    """What a header says, with the adapter's folder and size."""
    return {
        "adapter": str(adapter),
        "adapter_bytes": folder_bytes(adapter),
        "parameters": header.parameters,
        "dtypes": ", ".join(sorted({entry.dtype for entry in header.tensors})),
        **header.as_dict(),
    }


def _counted(labels: list[str]) -> str:
    """``2 labels: ham, spam``; of a number its name."""
    return f"the number {labels[0]}" if len(labels) == 1 else f"{len(labels)} labels: {_short(labels)}"


def _short(labels: list[str], shown: int = 8) -> str:
    more = f" and {len(labels) - shown} more" if len(labels) > shown else ""
    return ", ".join(labels[:shown]) + more


def _value(value: object) -> str:
    return "all" if value is None else str(value)


for _app in (check_app, make_app):
    app.registered_commands += _app.registered_commands
