"""`lora-clf adapters convert | average | extract`: new adapters out of others, PEFT's among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.adapters.disk import folder_bytes
from lora_clf.cli.adapters_plain import app as plain_app
from lora_clf.cli.beside import beside, show_beside
from lora_clf.cli.flags import AdapterFlags, DataFlags, Force, Json, takes
from lora_clf.cli.opening import open_adapter, warnings_noted
from lora_clf.cli.output import document, line, note, size
from lora_clf.cli.places import check_writable
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.errors import BaseNotFoundError, DownloadError, UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.peft_fields import PeftFields
    from lora_clf.base.base import Base

app = typer.Typer(add_completion=False)

Out = Annotated[Path, typer.Option("--out", help="The new adapter's folder.")]
Dtype = Annotated[str | None, typer.Option("--adapter-dtype", help="fp32, or bf16 for a file half as large.")]
Data = Annotated[str | None, typer.Option(help="Labelled data to score on: a table, or a corpus.")]
AllRows = Annotated[bool, typer.Option("--all-rows", help="Score every row of --data; do not split it.")]


@app.command()
@takes
def convert(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A folder that PEFT saved, or its Hub id.")],
    out: Out,
    labels: Annotated[str | None, typer.Option(help="The labels in the order of the outputs, as ham,spam.")] = None,
    positive_label: Annotated[str | None, typer.Option(help="Of two labels the one to find.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens kept of a text; by default the base's own.")] = None,
    truncation: Annotated[str, typer.Option(help="The side of a long text that is cut away: right or left.")] = "right",
    strategy: Annotated[
        str, typer.Option(help="lora, lora-scratch, or full: all weights, for layers outside the blocks too.")
    ] = "lora",
    fuse_qkv: Annotated[
        bool, typer.Option("--fuse-qkv", help="Bring separate query, key and value into the base's fused layer.")
    ] = False,
    split_qkv: Annotated[
        str | None,
        typer.Option(
            help="The way back: of one of ours write PEFT's folder with the three apart, called as q_proj, query, "
            "W_query, ..."
        ),
    ] = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
) -> None:
    """Bring an adapter that PEFT saved into our form, on its base; PEFT's own file stays as it is."""
    quiet_third_parties()
    from lora_clf.adapters.file import check_free
    from lora_clf.adapters.foreign import check_name, load_foreign, read_otherwise
    from lora_clf.adapters.origin import adapter_folder
    from lora_clf.adapters.peft_folder import read_foreign

    check_free(out, force=force)
    check_writable(out, "--out")
    _check_dtype(dtype)
    if truncation not in ("right", "left"):
        raise UsageError(f"--truncation {truncation}: expected right or left.")
    folder = adapter_folder(adapter, file_cap=how.cap)
    _check_other(out, folder)
    if split_qkv is not None:
        given = {
            "--labels": labels is not None, "--positive-label": positive_label is not None, "--fuse-qkv": fuse_qkv,
            "--max-length": max_length is not None, "--truncation": truncation != "right",
            "--strategy": strategy != "lora", "--adapter-dtype": dtype is not None,
        }  # fmt: skip
        if odd := ", ".join(name for name, came in given.items() if came):
            raise UsageError(f"--split-qkv writes what one of our adapters holds; {odd} does not apply.")
        _split(adapter, out, split_qkv, how, force, as_json)
        return
    fields = read_foreign(folder, file_cap=how.cap).fields
    base = _base_of(adapter, fields, how)
    named = check_name(adapter, fields, base, how.base_check)
    with warnings_noted():
        made = load_foreign(
            folder,
            base,
            labels=_names(labels),
            positive_label=positive_label,
            max_length=max_length,
            truncation=truncation,
            strategy=strategy,
            base_check=how.base_check,
            fuse_qkv=fuse_qkv,
            file_cap=how.cap,
        )
    if sentences := ", ".join(read_otherwise(base)):
        note(
            f"Warning: transformers' tokenizer of {base.name} reads other tokens in some fixed sentences "
            f"({sentences}): the adapter may answer otherwise here than where it was trained. Compare answers."
        )
    made.save(out, force=force, dtype=dtype)
    if as_json:
        document({**_facts(made, out), "base_named": fields.base_name, "base_name_check": named})
        return
    line(f"PEFT stores no digest of its base. Checked on {base.name}: layers and shapes; {_said(fields, named)}.")
    line(f"From now on the adapter is tied to that base, digest {base.digest[:12]}.")
    _show(made, out)


def _check_other(out: Path, source: Path) -> None:
    """Refuse to replace the adapter that is converted: there and back some of it is lost."""
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"--out {out} is the adapter itself, which stays as it is. Give another --out.")


def _base_of(adapter: Path, fields: PeftFields, how: AdapterFlags) -> Base:
    """The base that the flags name, else the one that PEFT's file names."""
    from lora_clf.adapters.foreign import own_name
    from lora_clf.base.base import load_base

    if how.base is not None:
        return load_base(how.base, revision=how.revision, device=how.device)
    name = own_name(fields)
    if name is None:
        raise UsageError(f"The adapter in {adapter} does not say on which base it was trained. Give it: --base NAME.")
    try:
        return load_base(name, revision=how.revision, device=how.device)
    except (BaseNotFoundError, DownloadError, UsageError) as error:
        raise BaseNotFoundError(
            f"The adapter in {adapter} was trained on {fields.base_name!r}, by its adapter_config.json, which is not "
            f"here: {error} Or give it: --base NAME."
        ) from error


def _said(fields: PeftFields, named: str) -> str:
    name = f"{fields.base_name}@{fields.revision}" if fields.base_name and fields.revision else fields.base_name
    if named == "equal":
        return f"the file names the same base, {name}"
    if named == "other":
        return f"the file names another base, {name}, which was let pass"
    return f"the file names {name or 'no base'}, which cannot be compared"


def _names(labels: str | None) -> list[str] | None:
    return None if labels is None else [label.strip() for label in labels.split(",")]


def _split(adapter: Path, out: Path, query: str, how: AdapterFlags, force: bool, as_json: bool) -> None:
    from lora_clf.adapters.apart import write_apart

    loaded = open_adapter(adapter, how, "adapters convert")
    write_apart(loaded, out, query=query, force=force)
    if as_json:
        document({"adapter": str(out), "adapter_bytes": folder_bytes(out), "format": "peft"})
        return
    line(
        f"PEFT adapter: {out} ({size(folder_bytes(out))}), query, key and value apart; labels and digest are not in it."
    )


@app.command()
@takes
def average(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Folders, or Hub ids; two or more.")],
    out: Out,
    weights: Annotated[str | None, typer.Option(help="One a part, as 3,1; by default all are equal.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="Of LoRA: come down to it; by default ranks add up, exactly.")
    ] = None,
    data: Data = None,
    all_rows: AllRows = False,
    seed: Annotated[int | None, typer.Option(help="Of the split of --data; by default found.")] = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
    columns: DataFlags,
) -> None:
    """Average adapters of one kind on one base; of LoRA adapters the changes are averaged."""
    quiet_third_parties()
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.average import average as combine
    from lora_clf.adapters.file import check_free

    check_free(out, force=force)
    check_writable(out, "--out")
    _check_dtype(dtype)
    shares = _numbers(weights)
    first = open_adapter(adapters[0], how, "adapters average")
    settings: dict[str, Any] = {"file_cap": how.cap, "base_check": how.base_check, "verify": not how.no_verify}
    parts = [first, *(load_adapter(place, first.base, **settings) for place in adapters[1:])]
    found = combine(parts, shares, rank=rank)
    names = [str(place) for place in adapters]
    scores = beside(found.adapter.cast(dtype), dict(zip(names, parts, strict=True)), data, columns, seed, all_rows)
    made = scores.adapter
    made.save(out, force=force, dtype=dtype)
    if as_json:
        more = {"weights": found.weights, "kept": found.kept, "left_out": found.left_out, "scores": scores.parts}
        document({**_facts(made, out), **more})
        return
    parts_shown = ", ".join(f"{share:.3g} of {name}" for name, share in zip(names, found.weights, strict=True))
    line(f"Averaged: {parts_shown}.")
    if found.kept < 1:
        line(f"Rank {rank} keeps {100 * found.kept:.3g} % of the squared norm of the averaged change.")
    if gone := [name for name in found.left_out if name != "metrics" or data is None]:
        line(f"Not taken over, since what holds for the parts does not hold for the average: {', '.join(gone)}.")
    show_beside(scores, "average")
    _show(made, out)


@app.command()
@takes
def extract(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    out: Out,
    rank: Annotated[int, typer.Option(help="Of the LoRA; the larger, the nearer.")] = 8,
    data: Data = None,
    all_rows: AllRows = False,
    seed: Annotated[int | None, typer.Option(help="Of the split of --data; by default found.")] = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
    columns: DataFlags,
) -> None:
    """Extract the low-rank LoRA nearest to what full or last-block tuning changed; the head stays."""
    quiet_third_parties()
    from lora_clf.adapters.extraction import extract as nearest
    from lora_clf.adapters.file import check_free
    from lora_clf.adapters.origin import adapter_folder

    check_free(out, force=force)
    check_writable(out, "--out")
    _check_dtype(dtype)
    original = open_adapter(adapter, how, "adapters extract")
    original_bytes = folder_bytes(adapter_folder(adapter, file_cap=how.cap))
    found = nearest(original, rank)
    scores = beside(found.adapter.cast(dtype), {str(adapter): original}, data, columns, seed, all_rows)
    made = scores.adapter
    made.save(out, force=force, dtype=dtype)
    if as_json:
        more = {"rank": found.rank, "layers": found.layers, "kept": found.kept, "left_out": found.left_out}
        document({**_facts(made, out), **more, "original_bytes": original_bytes, "scores": scores.parts})
        return
    line(
        f"Of the squared norm of the change {100 * found.kept:.3g} % is in {found.layers} layers of rank {found.rank}."
    )
    if found.left_out:
        ordered = sorted(found.left_out.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{_kind(kind)} {100 * share:.2g} %" for kind, share in ordered)
        line(f"Left out: {shown}. What that costs only labelled data tells: --data.")
    task = original.header.answering
    if task != task.unsettled():
        line("Thresholds and temperature were found for the original and are not taken over.")
    show_beside(scores, "extracted")
    if original.header.tensors:
        line(f"The original: {original.header.parameters:,} numbers; extracted: {made.header.parameters:,}.")
    _show(made, out)


def _kind(kind: str) -> str:
    return "smaller singular values" if kind == "rank" else kind


def _check_dtype(dtype: str | None) -> None:
    from lora_clf.adapters.adapter import DTYPES
    from lora_clf.errors import unknown

    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text}: expected numbers with commas between them, as 3,1.") from None


def _facts(made: Adapter, out: Path) -> dict[str, Any]:
    header = made.header
    return {
        "adapter": str(out),
        "adapter_bytes": folder_bytes(out),
        "strategy": header.strategy,
        "settings": dict(header.settings),
        "labels": list(header.labels),
        "positive_label": header.positive_label,
        "base": header.base_name,
        "base_digest": header.base_digest,
        "parameters": header.parameters,
        "digest": header.digest,
    }


def _show(made: Adapter, out: Path) -> None:
    header = made.header
    settings = ", ".join(f"{name} {value}" for name, value in header.settings.items() if value is not None)
    targets = str(header.settings.get("targets", ""))
    if len(targets) > 60:
        settings = settings.replace(targets, f"{targets.count(',') + 1} layers")
    line(f"{header.strategy}{f' ({settings})' if settings else ''}, labels {', '.join(header.labels)}.")
    line(f'Adapter: {out} ({size(folder_bytes(out))}). Use it: lora-clf predict {out} "..."')


app.registered_commands += plain_app.registered_commands
