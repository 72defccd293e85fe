"""The flags of the head: a linear layer, or the language model's own words for the labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from lora_clf.cli.flags import Flags
from lora_clf.errors import UsageError, unknown

if TYPE_CHECKING:
    from lora_clf.base.verbalizer import Verbalizer

HEADS = ("linear", "verbalizer")


@dataclass(frozen=True)
class HeadFlags(Flags):
    """What turns the vector of a text into the scores of the labels."""

    panel: ClassVar[str] = "Head"

    head: Annotated[
        str, typer.Option(help="linear, or for decoders verbalizer: how likely each label's word is to come next.")
    ] = "linear"
    template: Annotated[
        str | None,
        typer.Option(help="What a verbalizer is asked, as 'Text: {text}\\nSpam:'.", show_default=False),
    ] = None
    verbalizer: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL=WORD,...",
            help="The word of each label, as spam=yes,ham=no; by default its own name.",
        ),
    ] = None

    def chosen(self, pooling: str | None) -> Verbalizer | None:
        """The verbalizer that the flags describe, ``pooling`` being what --pooling says; None for a linear head.

        Raises:
            UsageError: an unknown head, flags of the other one, or a list of words that cannot be read.
        """
        if self.head not in HEADS:
            raise unknown("head", self.head, HEADS)
        if self.head == "linear":
            given = [f"--{name}" for name in ("template", "verbalizer") if getattr(self, name) is not None]
            if given:
                raise UsageError(f"{' and '.join(given)}: this is about --head verbalizer, and --head is linear.")
            return None
        if pooling not in (None, "last"):
            raise UsageError(f"--head verbalizer reads the last token; --pooling {pooling} does not apply.")
        from lora_clf.base.verbalizer import TEMPLATE, Verbalizer

        template = TEMPLATE if self.template is None else self.template.replace("\\n", "\n").replace("\\t", "\t")
        return Verbalizer(template, None if self.verbalizer is None else words_of(self.verbalizer))


def words_of(given: str) -> dict[str, str]:
    """Labels and their words, of ``spam=yes,ham=no`` or of a JSON object.

    Raises:
        UsageError: neither, or a label that is named twice.
    """
    if given.lstrip().startswith("{"):
        try:
            found = json.loads(given)
        except ValueError as error:
            raise UsageError(f"--verbalizer {given}: this is no JSON object: {error}.") from error
        if not all(isinstance(word, str) for word in found.values()):
            raise UsageError(f"--verbalizer {given}: expected a text as the word of each label.")
        return dict(found)
    pairs = [part.partition("=") for part in given.split(",") if part.strip()]
    wrong = ["".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())]
    names = [label.strip() for label, _, _ in pairs]
    wrong += [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong or not pairs:
        raise UsageError(
            f"--verbalizer {given}: expected LABEL=WORD once for each label, as spam=yes,ham=no"
            f"{': ' + ', '.join(wrong) if wrong else ''}. A JSON object does for labels with a comma or an equals sign."
        )
    return {label.strip(): word.strip() for label, _, word in pairs}
