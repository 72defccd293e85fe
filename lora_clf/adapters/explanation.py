"""Which part of a text an answer rests on: its chunks, where they stand in the text, and what each of them says.

A chunk's share in the answer follows from how chunks are joined, and the shares of a text add up to one: with ``mean``
all are alike; with ``max`` the surest chunk has all of it; with ``vote`` the chunks that voted for the answer share it
evenly; with ``score`` each has its part of the evidence for the answer; with ``attention`` it is the weight of the
chunk's vector, with ``mlp`` and ``bilstm`` the share of features of which the chunk gave the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.base.documents import Documents
from lora_clf.data.traced import Span
from lora_clf.inference.predict import explained, logits

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter


@dataclass(frozen=True)
class Chunk:
    """A part of a text that was read at once.

    Attributes:
        start, end: its characters in the text as it came, the last one left out.
        share: of the answer.
        label: what the chunk alone would be answered with.
        probability: what the chunk alone gives the label that the text got; None where labels have no probability.
    """

    start: int
    end: int
    share: float
    label: str
    probability: float | None

    def as_dict(self) -> dict[str, Any]:
        """The chunk, ready for JSON."""
        return {"start": self.start, "end": self.end, "share": self.share, "label": self.label,
                "probability": self.probability}  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """The answer for one text, and its chunks.

    Attributes:
        text: as it came.
        answer: as `Adapter.predict` gives it.
        chunks: first to last; one, the whole text, where it was read at once.
    """

    text: str
    answer: Any
    chunks: tuple[Chunk, ...]

    def as_dict(self) -> dict[str, Any]:
        """The answer and its chunks, ready for JSON; without the text."""
        return {**self.answer.as_dict(), "chunks": [chunk.as_dict() for chunk in self.chunks]}


def explain(adapter: Adapter, texts: Sequence[str]) -> list[Explanation]:
    """The answers of `Adapter.predict` in fp32, each with the chunks that it rests on.

    Raises:
        UsageError: ``texts`` is one text, or something in it is no text.
    """
    tokens = adapter.encode(texts)
    view, softmax = adapter.tuned.view, adapter.header.answering.softmax
    if isinstance(tokens, Documents):
        joined, each = explained(view, tokens, softmax=softmax)
        found, shares, spans, first = joined.logits, joined.shares, tokens.spans, tokens.first
    else:  # one chunk a text, whose end may be cut off
        found = each = logits(view, tokens)
        shares = np.ones(len(tokens), dtype=np.float32)
        spans = tuple(Span(0, len(text)) for text in texts)
        first = np.arange(len(tokens) + 1)
    answers = adapter.answers(found, tokens.cut)
    own = adapter.answers(each, np.zeros(len(each), dtype=np.bool_))
    result = []
    for number, (start, end) in enumerate(pairwise(first.tolist())):
        label = answers[number].cells()[0]
        chunks = tuple(
            Chunk(*spans[row], float(shares[row]), own[row].cells()[0], _probability(own[row], label))
            for row in range(start, end)
        )
        result.append(Explanation(texts[number], answers[number], chunks))
    return result


def _probability(answer: Any, label: str) -> float | None:
    shares = getattr(answer, "probabilities", None)
    return float(shares[label]) if isinstance(shares, dict) and label in shares else None
