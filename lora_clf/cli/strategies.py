"""`lora-clf strategies`: the ways of tuning, what each trains on the chosen base, and its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_clf.cli.flags import Json, Revision
from lora_clf.cli.opening import weightless
from lora_clf.cli.output import document, line, note, share, table
from lora_clf.cli.quiet import quiet_third_parties

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.tuners.base import Tuner

app = typer.Typer(add_completion=False)
DEFAULT_BASE = "minilm"


@app.command()
def strategies(
    base: Annotated[str | None, typer.Option(help="The base to count on; minilm by default.")] = None,
    revision: Revision = None,
    pooling: Annotated[str | None, typer.Option(help="mean, first, last or family.")] = None,
    labels: Annotated[int, typer.Option(min=1, help="How many labels the head tells apart.")] = 2,
    as_json: Json = False,
) -> None:
    """List the ways of tuning: what trains, how much of the base, which flags."""
    quiet_third_parties()
    from lora_clf import tuners

    on = _base(base, revision, pooling)
    found = [describe(kind, on, labels) for kind in tuners.strategies().values()]
    if as_json:
        document(found)
        return
    if on is not None:
        line(f"On {on.name} ({on.total_parameters:,} parameters), {labels} labels, {on.pooling} pooling:")
    table(
        ("strategy", "trains", "parameters", "share", "lr", "flags"),
        [
            (
                each["name"],
                f"not on this base: {each['refused']}" if each["refused"] else each["trains"],
                each["trainable_parameters"],
                share(each["share"]),
                f"{each['learning_rate']:g}",
                _flags(each["flags"]) or None,
            )
            for each in found
        ],
    )


def _base(name: str | None, revision: str | None, pooling: str | None) -> Base | None:
    """The base on the meta device, where nothing is computed; None where only the default is out of reach."""
    from lora_clf.base.base import load_base
    from lora_clf.errors import BaseNotFoundError, DownloadError

    try:
        return weightless(load_base(name or DEFAULT_BASE, revision=revision, device="cpu", pooling=pooling))
    except (BaseNotFoundError, DownloadError) as error:
        if name is not None:
            raise
        note(f"Parameters are not counted, the base is not here: {error}")
        return None


def describe(kind: type[Tuner], base: Base | None, labels: int) -> dict[str, Any]:
    """One strategy as a JSON object; the counts are null where there is no base to count on."""
    trainable = part = refused = None
    if base is not None and (refused := kind().refusal(base.view(labels))) is None:
        tuned = kind().prepare(base.view(labels))
        trainable = tuned.trainable_parameters
        part = trainable / sum(parameter.numel() for parameter in tuned.view.parameters())
    return {
        "name": kind.name,
        "summary": (kind.__doc__ or kind.summary).strip().splitlines()[0],
        "trains": kind.summary,
        "refused": refused,
        "trainable_parameters": trainable,
        "share": part,
        "learning_rate": kind.learning_rate,
        "flags": kind.flags(),
    }


def _flags(flags: dict[str, Any]) -> str:
    return " ".join(
        f"--{name.replace('_', '-')}" if default in (None, "") else f"--{name.replace('_', '-')} {default}"
        for name, default in flags.items()
    )
