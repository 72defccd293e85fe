"""`lora-clf adapters verify | diff`: whether an adapter is what it was, and what tells two apart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_clf.cli.findings import show_findings
from lora_clf.cli.flags import AdapterFlags, Device, FileCap, Json, OwnBase, Revision
from lora_clf.cli.opening import open_base
from lora_clf.cli.output import document, line, note, percent, seconds, table
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.errors import LoraClfError

app = typer.Typer(add_completion=False)

SHOWN = 60  # characters of a value in a table
# Scores that are shares, shown in percent, and what is no score; all others are shown as they are.
SHARES = frozenset(
    {
        *("accuracy", "balanced_accuracy", "subset_accuracy", "within_one", "precision", "recall", "f1", "macro_f1"),
        *("micro_f1", "micro_precision", "micro_recall", "pr_auc", "macro_pr_auc", "false_positive_rate"),
    }
)
COUNTS = frozenset({"n", "support"})


@app.command()
def verify(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    base: OwnBase = None,
    revision: Revision = None,
    device: Device = "auto",
    file_cap: FileCap = 2.0,
    as_json: Json = False,
) -> None:
    """Check an adapter from its file to its canaries, a line a check; exit status 1 where one fails."""
    quiet_third_parties()
    from lora_clf.adapters.origin import adapter_folder
    from lora_clf.adapters.verification import verify_folder

    how = AdapterFlags(base=base, revision=revision, device=device, file_cap=file_cap)
    start = time.perf_counter()
    folder = adapter_folder(adapter, file_cap=how.cap)
    found = verify_folder(folder, lambda header: open_base(adapter, header, how, "adapters verify"), file_cap=how.cap)
    sound = all(finding.passed for finding in found)
    if as_json:
        document({"adapter": str(adapter), "sound": sound, "checks": [finding.as_dict() for finding in found]})
    else:
        show_findings(found)
        note(f"Checked {adapter} in {seconds(time.perf_counter() - start)}, the base's loading included.")
    if not sound:
        raise typer.Exit(1)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="An adapter's folder, or its Hub id.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    base: OwnBase = None,
    revision: Revision = None,
    file_cap: FileCap = 2.0,
    as_json: Json = False,
) -> None:
    """Show what tells two adapters apart: settings, labels, metrics, base, and their changes layer by layer."""
    quiet_third_parties()
    from lora_clf.adapters.contrast import fields_apart, layers_apart, metrics_apart, needs_base
    from lora_clf.adapters.file import read_folder
    from lora_clf.adapters.origin import adapter_folder

    how = AdapterFlags(base=base, revision=revision, device="cpu", file_cap=file_cap)
    one, other = (read_folder(adapter_folder(place, file_cap=how.cap), file_cap=how.cap) for place in (first, second))
    fields, metrics = fields_apart(one[0], other[0]), metrics_apart(one[0], other[0])
    same_base = one[0].base_digest == other[0].base_digest
    reason = None if same_base else "they stand on different bases"
    layers = []
    if same_base:
        try:
            on = open_base(first, one[0], how, "adapters diff") if needs_base(one[0], other[0]) else None
            if on is not None and on.digest != one[0].base_digest:
                raise LoraClfError(f"{on.name} is not the base that they were trained on")
            layers = list(layers_apart(one, other, on))
        except LoraClfError as error:  # what the headers say is worth showing without the base
            reason = str(error).rstrip(".")
    if as_json:
        document(
            {
                "first": str(first),
                "second": str(second),
                "same": one[0].digest == other[0].digest,
                "fields": {name: list(pair) for name, pair in fields.items()},
                "metrics": {name: list(pair) for name, pair in metrics.items()},
                "layers": [layer.as_dict() for layer in layers],
                "layers_not_compared": reason,
            }
        )
        return
    if one[0].digest == other[0].digest:
        line(f"{first} and {second} are the same adapter, {one[0].digest[:12]}.")
        return
    names = ("A", "B")
    table(
        ("field", *names), [(name, *map(_value, pair)) for name, pair in fields.items()] or [("none differs", "", "")]
    )
    if scores := _scores(metrics):
        line()
        table(("score", *names, "B - A"), scores)
    line()
    if reason is not None:
        line(f"The changes of the layers were not compared: {reason}.")
    elif layers:
        table(
            ("change of", "|A|", "|B|", "|A - B|", "cosine"),
            [
                (each.name, f"{each.first:.4f}", f"{each.second:.4f}", f"{each.apart:.4f}", _cosine(each.cosine))
                for each in layers
            ],
        )
    line()
    line(
        f"A is {first}, B is {second}. Norms are Frobenius norms of what is added to the base's weights; of "
        "parameters that a strategy puts beside these, of the parameters themselves."
    )


def _scores(metrics: dict[str, tuple[float | None, float | None]]) -> list[tuple[str, ...]]:
    """The scores of both with the difference: shares as percent and points, the others as they are."""
    rows: list[tuple[str, ...]] = []
    for name, (a, b) in metrics.items():
        kind = name.rsplit(".", 1)[-1]
        if kind in SHARES:
            apart = "-" if a is None or b is None else f"{100 * (b - a):+.2f} points"
            rows.append((name, percent(a), percent(b), apart))
        elif kind not in COUNTS:
            apart = "-" if a is None or b is None else f"{b - a:+.4f}"
            rows.append((name, *("-" if value is None else f"{value:.4f}" for value in (a, b)), apart))
    return rows


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    text = "-" if value is None else text
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
