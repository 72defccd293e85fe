"""`lora-clf doctor`: looks into an adapter or a base for what goes wrong in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_clf.cli.findings import show_findings
from lora_clf.cli.flags import AdapterFlags, Device, FileCap, Json
from lora_clf.cli.opening import open_base
from lora_clf.cli.output import document, line
from lora_clf.cli.quiet import quiet_third_parties
from lora_clf.errors import BaseNotFoundError, UsageError

if TYPE_CHECKING:
    from lora_clf.adapters.finding import Finding
    from lora_clf.base.base import Base

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    target: Annotated[
        str, typer.Argument(metavar="ADAPTER|BASE", help="An adapter's folder, or a base's folder, name or Hub id.")
    ],
    prompt: Annotated[
        str | None, typer.Option(help='What a decoder base goes on from; "Every effort moves you" by default.')
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="How many tokens it writes, 10 to 25; 15 by default.")] = None,
    base: Annotated[str | None, typer.Option(help="The adapter's base; by default its own, found by digest.")] = None,
    revision: Annotated[str | None, typer.Option(help="A Hub revision, where the base is a Hub id.")] = None,
    device: Device = "auto",
    file_cap: FileCap = 2.0,
    as_json: Json = False,
) -> None:
    """Look into an adapter or a base for what goes wrong in silence."""
    quiet_third_parties()
    from lora_clf.adapters.file import CONFIG, MODEL
    from lora_clf.base.base import load_base

    how = AdapterFlags(base=base, revision=revision, device=device, file_cap=file_cap)
    is_adapter = any(os.path.lexists(Path(target) / name) for name in (MODEL, CONFIG))
    if is_adapter:
        if prompt is not None or tokens is not None:
            raise UsageError("--prompt and --tokens are about a base; ask the doctor about the adapter's base.")
        found, on = _adapter(Path(target), how)
    else:
        if base is not None:
            raise UsageError(f"--base {base}: {target!r} is taken for a base itself; there is no adapter in it.")
        try:
            on = load_base(target, revision=revision, device=device)
        except BaseNotFoundError as error:
            raise BaseNotFoundError(f"There is no adapter in {target!r}. {error}") from error
        from lora_clf.adapters.doctor import examine_base

        found = examine_base(on, prompt=prompt, tokens=tokens)
    healthy = all(finding.passed is not False for finding in found)
    if as_json:
        document(
            {
                "target": target,
                "kind": "adapter" if is_adapter else "base",
                "base": on.name,
                "base_digest": on.digest,
                "tokenizer_digest": on.tokenizer_digest,
                "healthy": healthy,
                "checks": [finding.as_dict() for finding in found],
            }
        )
    else:
        if is_adapter:
            line(f"Adapter: {target}.")
        line(f"Base: {on.name}, {on.total_parameters:,} parameters, digest {on.digest[:12]}, on {on.device}.")
        line()
        show_findings(found)
    if not healthy:
        raise typer.Exit(1)


def _adapter(place: Path, how: AdapterFlags) -> tuple[list[Finding], Base]:
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.doctor import examine_adapter
    from lora_clf.adapters.file import read_header

    base = open_base(place, read_header(place), how, "doctor")
    # Whatever is wrong with the base is a finding, with its number, and no end of it.
    adapter = load_adapter(place, base, file_cap=how.cap, base_check="off")
    return examine_adapter(adapter), base
