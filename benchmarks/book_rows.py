"""The questions of the book's additional experiments as settings, each with the figures that were published for GPT-2.

The figures are those of ch06/02_bonus_additional-experiments in the repository of "Build a Large Language Model (From
Scratch)", read at commit 28c65cdfbc3338e2e040016eea4b7fdf556e4d57 (16 April 2026): one run each. Rows with a letter are
ours and have no published figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lora_clf.errors import UsageError, unknown

if TYPE_CHECKING:
    from lora_clf.base.architecture import Architecture

SIZES = ("small", "medium", "large", "xl")
LIBRARY = "library"


@dataclass(frozen=True)
class Row:
    """One question: the settings of row 1 unless said otherwise.

    Attributes:
        name: the number in the book's table, or a letter for a question of ours.
        question: what is asked, in a few words.
        size: which of four sizes of the base: "small" is the base itself.
        weights: "pretrained", or "random": the same architecture with torch's own initial weights, drawn with the seed.
        pooling: "first", "last" or "mean".
        slots: whether padding is pooled as text is: the last slot, the mean of all slots.
        trains: "head", "last block", "last two blocks", "all" or "lora".
        scaling: what LoRA's product is multiplied with; the book multiplies with alpha itself, at rank 16.
        padding: to the longest text of the "training" part, to the "context" length, to the longest of each "batch",
            or "none", which takes batches of one.
        hidden: whether attention is kept from padding, which the book never does.
        flipped: whether the base has the other mask: a decoder none, an encoder a causal one.
        accumulate: batches whose gradients are added up before a step.
        recipe: "book", or "library": lora_clf's own `train` with its defaults.
        against: the row that ours is compared with.
        published: accuracy in % on training, validation and test part.
    """

    name: str
    question: str
    size: str = "small"
    weights: str = "pretrained"
    pooling: str = "last"
    slots: bool = True
    trains: str = "last block"
    scaling: float = 16.0
    padding: str = "training"
    hidden: bool = False
    flipped: bool = False
    batch_size: int = 8
    accumulate: int = 1
    recipe: str = "book"
    against: str = "1"
    published: tuple[float, float, float] | None = None

    def computation(self, causal: bool) -> dict[str, Any]:
        """The settings that reach the result on a base that is ``causal`` or not: equal ones are the same run."""
        looks_ahead = causal == self.flipped
        tokens = not self.slots or self.padding == "none" or self.pooling == "first"
        unseen = self.padding == "none" or (tokens and (self.hidden or not looks_ahead))
        settings = asdict(self)
        for name in ("name", "question", "against", "published"):
            del settings[name]
        if self.recipe == LIBRARY:
            return {"recipe": LIBRARY, "trains": self.trains}
        return {
            **settings,
            "scaling": self.scaling if self.trains == "lora" else None,
            "slots": self.slots and not tokens,
            "padding": "batch" if unseen else self.padding,
            "hidden": self.hidden or unseen,
            "longest": "training" if self.padding == "training" else "context",  # what texts are cut to
        }


ROWS = (
    Row("1", "the book's chapter: last slot, last block, padded to 120", published=(96.63, 99.33, 95.00)),
    Row("2", "first token", pooling="first", published=(78.46, 80.54, 75.00)),
    Row("3", "head only", trains="head", published=(78.65, 79.87, 72.00)),
    Row("4", "last two blocks", trains="last two blocks", published=(98.85, 98.66, 98.33)),
    Row("5", "all layers", trains="all", published=(99.62, 96.64, 96.67)),
    Row("6", "medium", size="medium", published=(87.50, 91.28, 84.67)),
    Row("7", "large", size="large", published=(99.52, 98.66, 96.67)),
    Row("8", "XL", size="xl", published=(99.81, 99.81, 98.33)),
    Row("9", "XL, all layers", size="xl", trains="all", published=(100.00, 98.66, 98.67)),
    Row("10", "random weights, all layers", weights="random", trains="all", published=(100.00, 96.64, 93.67)),
    Row("11", "LoRA", trains="lora", published=(100.00, 97.32, 96.67)),
    Row("12", "XL, LoRA", size="xl", trains="lora", scaling=8.0, published=(100.00, 98.66, 98.33)),
    Row("13", "padded to the context length", padding="context", published=(83.08, 87.92, 78.33)),
    Row("14", "no padding, batches of 1", padding="none", batch_size=1, published=(100.00, 98.66, 98.00)),
    Row(
        "15",
        "no padding, 8 batches of 1 a step",
        padding="none",
        batch_size=1,
        accumulate=8,
        published=(99.33, 98.66, 98.33),
    ),
    Row("16", "last token that is text", slots=False, published=(99.42, 98.66, 98.33)),
    Row(
        "17", "the other mask: a decoder sees ahead, an encoder does not", flipped=True, published=(99.23, 98.66, 95.33)
    ),
    Row("18", "padding id ignored in the loss", published=(96.63, 99.33, 95.00)),
    Row("19", "mean of all slots", pooling="mean", published=(97.79, 99.33, 96.33)),
    Row("A", "padded to the longest of each batch", padding="batch"),
    Row("B", "last token that is text, attention kept from padding", slots=False, hidden=True),
    Row("C", "mean of the text, attention kept from padding", pooling="mean", slots=False, hidden=True),
    Row("D", "as C, the other mask", pooling="mean", slots=False, hidden=True, flipped=True, against="C"),
    Row(
        "E",
        "as C, random weights, all layers",
        weights="random",
        pooling="mean",
        slots=False,
        trains="all",
        hidden=True,
    ),
    Row(
        "F",
        "as E, the other mask",
        weights="random",
        pooling="mean",
        slots=False,
        trains="all",
        hidden=True,
        flipped=True,
        against="E",
    ),
    Row("G", "last block with lora_clf's own recipe and pooling", recipe=LIBRARY),
)
BY_NAME: Mapping[str, Row] = {row.name: row for row in ROWS}


def rows_named(names: str) -> list[Row]:
    """The rows of "1,2,A", of "all", or of "book": the numbered ones.

    Raises:
        UsageError: a name that is none.
    """
    if names in ("all", "book"):
        return [row for row in ROWS if names == "all" or row.name.isdecimal()]
    found = []
    for name in dict.fromkeys(part.strip().upper() for part in names.split(",")):
        if name not in BY_NAME:
            raise unknown("row", name, (*BY_NAME, "all", "book"))
        found.append(BY_NAME[name])
    return found


def sizes_named(given: Sequence[str], base: str) -> dict[str, str]:
    """The base of each size: those of ``medium=BASE``, and GPT-2's own.

    Raises:
        UsageError: something else than SIZE=BASE.
    """
    found = {size: f"gpt2-{size}" for size in SIZES[1:]} if base == "gpt2" else {}
    for one in given:
        size, _, name = one.partition("=")
        if size not in SIZES[1:] or not name:
            raise UsageError(f"--size {one}: expected SIZE=BASE with a size of {', '.join(SIZES[1:])}.")
        found[size] = name
    return {"small": base, **found}


def twin(row: Row, causal: bool) -> Row | None:
    """The first row before this one that is the same computation on such a base, or None."""
    wanted = row.computation(causal)
    return next((other for other in ROWS[: ROWS.index(row)] if other.computation(causal) == wanted), None)


def windowed(config: Any) -> bool:
    """Whether some block's attention sees only so many tokens, which a mask of ours would undo."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return getattr(config, "sliding_window", None) is not None


def unsupported(row: Row, config: Any, architecture: Architecture) -> str | None:
    """Why a base of this architecture does not support the row, in a few words; None where it does."""
    from lora_clf.base.base import position_limit

    if row.flipped and (windowed(config) or architecture.global_token):
        return "its attention looks at a window of tokens, which another mask would undo"
    if row.flipped and architecture.model_type == "opt":
        return "it counts positions from its mask, so another mask would move them"
    if row.padding == "context" and position_limit(config) is None:
        return "it has no context length: positions are relative"
    if row.trains == "last two blocks" and int(config.num_hidden_layers) < 2:
        return "it has one block only"
    return None
