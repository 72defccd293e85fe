"""`lora-clf adapters merge | export`: an adapter's change in plain weights, for us or for transformers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lora_clf.adapters.disk import folder_bytes
from lora_clf.cli.flags import AdapterFlags, Force, Json, takes
from lora_clf.cli.opening import open_adapter
from lora_clf.cli.output import document, line, size
from lora_clf.cli.places import check_writable
from lora_clf.cli.quiet import quiet_third_parties

app = typer.Typer(add_completion=False)


@app.command()
@takes
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    out: Annotated[Path, typer.Option("--out", help="The new base's folder; its head goes to OUT/head.")],
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
) -> None:
    """Merge an adapter into its base: a base of its own, as --base takes it, and a head-only adapter on that."""
    quiet_third_parties()
    from lora_clf.adapters.plain import merge as write
    from lora_clf.adapters.plain_folder import HEAD_FOLDER, check_base_name, check_free_model

    check_base_name(out)
    check_free_model(out, force=force)
    check_writable(out, "--out")
    written, head = write(open_adapter(adapter, how, "adapters merge"), out, force=force)
    place = out / HEAD_FOLDER
    if as_json:
        document(
            {
                "base": str(out),
                "base_digest": head.header.base_digest,
                "base_bytes": folder_bytes(out) - folder_bytes(place),
                "adapter": str(place),
                "adapter_bytes": folder_bytes(place),
                "difference": written.difference,
            }
        )
        return
    line(f"Base: {out} ({size(folder_bytes(out) - folder_bytes(place))}), digest {head.header.base_digest[:12]}.")
    line(f"Head: {place} ({size(folder_bytes(place))}).")
    line(f"Logits of the fixed sentences differ from the adapter's by {written.difference:.1g}.")
    line(f'Use it: lora-clf predict --base {shlex.quote(str(out))} {shlex.quote(str(place))} "..."')


@app.command()
@takes
def export(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, or its Hub id.")],
    merged: Annotated[Path, typer.Option("--merged", help="The folder to write.", metavar="DIR")],
    force: Force = False,
    as_json: Json = False,
    *,
    how: AdapterFlags,
) -> None:
    """Export a classifier with a family head as a folder that transformers' pipeline runs without lora_clf."""
    quiet_third_parties()
    from lora_clf.adapters.plain import export as write
    from lora_clf.adapters.plain_folder import check_free_model

    check_free_model(merged, force=force)
    check_writable(merged, "--merged")
    written = write(open_adapter(adapter, how, "adapters export"), merged, force=force)
    if as_json:
        document(
            {
                "folder": str(merged),
                "bytes": folder_bytes(merged),
                "difference": written.difference,
                "remarks": list(written.remarks),
            }
        )
        return
    line(f"Model: {merged} ({size(folder_bytes(merged))}).")
    line(f"transformers' pipeline gives the same probabilities on fixed sentences, to {written.difference:.1g}.")
    for remark in written.remarks:
        line(remark)
    line(f'Use it: pipeline("text-classification", model={str(merged)!r})(texts, truncation=True)')
