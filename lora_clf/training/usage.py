"""How much of its texts a run reads: what is cut off is counted, not passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_clf.base.reading import Reading, whole_text
from lora_clf.base.tokenizer import Tokenizer, Tokens


@dataclass(frozen=True)
class Usage:
    """The tokens of one part, without those that the base puts around a text.

    Attributes:
        texts: how many there are.
        chunks: how many pieces they are read in.
        cut: how many of them are not read to the end.
        tokens: in all of the texts, once each; cleaned, where they are.
        read: of those how many are read.
        dropped: the others.
        shared: tokens that are read twice, since neighbouring chunks share them.
    """

    texts: int
    chunks: int
    cut: int
    tokens: int
    read: int
    dropped: int
    shared: int

    def as_dict(self) -> dict[str, Any]:
        """The counts, ready for JSON."""
        return asdict(self)


def usage(tokenizer: Tokenizer, texts: Sequence[str], tokens: Tokens, reading: Reading) -> Usage:
    """How much of ``texts`` is in ``tokens``, which `lora_clf.base.reading.read` made of them."""
    around = sum(len(part) for part in tokenizer.around)
    lengths = (tokens.lengths - around).clip(min=0)
    if not reading.whole:
        rows = tokens.truncated.nonzero()[0].tolist()
        whole = tokenizer.count([whole_text(texts[row], reading) for row in rows])
        dropped = sum(max(0, count - int(lengths[row])) for row, count in zip(rows, whole, strict=True))
        read = int(lengths.sum())
        return Usage(len(texts), len(tokens), len(rows), read + dropped, read, dropped, 0)
    said = [whole_text(text, reading) for text in texts]
    total = sum(tokenizer.count(said))
    rows = tokens.cut.nonzero()[0].tolist()
    kept = tokenizer.count([said[row][slice(*tokenizer.ends(said[row]))] for row in rows])
    dropped = sum(tokenizer.count([said[row] for row in rows])) - sum(kept)
    read = int(lengths.sum())
    return Usage(len(texts), len(tokens), len(rows), total, total - dropped, dropped, max(0, read - total + dropped))
