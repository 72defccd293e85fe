"""How long texts are read: the flags of `train` and `compare`, and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from lora_clf.cli.flags import Flags
from lora_clf.cli.output import line, one_line

if TYPE_CHECKING:
    from lora_clf.adapters.explanation import Explanation
    from lora_clf.base.reading import Reading
    from lora_clf.training.usage import Usage


@dataclass(frozen=True)
class ReadingFlags(Flags):
    """What happens to texts that are longer than --max-length."""

    panel: ClassVar[str] = "Long texts"

    long: Annotated[
        str,
        typer.Option(
            help="truncate cuts them off; chunk trains on chunks and joins their answers; hierarchical trains a small "
            "network over the vectors of all chunks."
        ),
    ] = "truncate"
    segment: Annotated[
        str,
        typer.Option(
            help="What a chunk is: windows of --max-length tokens that end with a sentence; or turns, minutes (of a "
            "transcript) or sentences."
        ),
    ] = "windows"
    minutes: Annotated[int, typer.Option(help="How many are a chunk, with --segment minutes.")] = 1
    overlap: Annotated[int, typer.Option(help="Tokens that neighbouring windows share at most: whole sentences.")] = 32
    aggregate: Annotated[
        str, typer.Option(help="How the answers of chunks are joined, with --long chunk: mean, max, vote or score.")
    ] = "mean"
    combine: Annotated[str, typer.Option(help="The network of --long hierarchical: attention, mlp or bilstm.")] = (
        "attention"
    )
    clean: Annotated[
        str,
        typer.Option(help="transcript numbers the speakers and takes out time stamps and filler words; or none."),
    ] = "none"

    def reading(self) -> Reading:
        """What they ask for.

        Raises:
            UsageError: names that there are not, or flags that would do nothing; all of them.
        """
        from lora_clf.base.reading import Reading

        return Reading(**self.settings())

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of `Reading`."""
        return asdict(self)


def usage_lines(usage: Mapping[str, Usage], reading: Reading) -> list[str]:
    """How many tokens of each part are read, where that is not simply all of them."""
    said = []
    for name, used in usage.items():
        share = 100 * used.read / max(1, used.tokens)
        if reading.whole:
            left = f"all but {used.dropped:,} of " if used.dropped else "all "
            said.append(
                f"Read of {name}: {left}{used.tokens:,} tokens of {used.texts:,} texts in {used.chunks:,} chunks, "
                f"{used.shared:,} of them twice."
            )
        elif used.dropped:
            said.append(
                f"Read of {name}: {used.read:,} of {used.tokens:,} tokens ({share:.0f} %); {used.dropped:,} were "
                f"dropped with the ends of {used.cut:,} of {used.texts:,} texts. --long chunk reads them too."
            )
    return said


def show_explanation(found: Explanation) -> None:
    """One text's answer, and a line a chunk: its share in the answer, its own answer, where it stands, what it is."""
    cells = (cell if isinstance(cell, str) else f"{cell:.4f}" for cell in found.answer.cells())
    line("\t".join([*cells, one_line(found.text)[:80]]))
    for chunk in found.chunks:
        own = "" if chunk.probability is None else f"{chunk.probability:.4f}"
        words = one_line(found.text[chunk.start : chunk.end])[:80]
        line(f"  {chunk.share:6.1%}\t{own}\t{chunk.start}-{chunk.end}\t{words}")
