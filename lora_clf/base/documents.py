"""Texts that are read in several chunks each, as the token ids of all chunks and whose they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lora_clf.base.tokenizer import Tokens

if TYPE_CHECKING:
    from lora_clf.base.reading import Reading
    from lora_clf.data.traced import Span


@dataclass(frozen=True, eq=False)
class Documents(Tokens):
    """The chunks of N texts, one text after the other; to code that knows nothing of texts they are K texts.

    Attributes:
        first: (N + 1,) the first chunk of each text, and the number of all chunks.
        spans: where each chunk stands in the text as it came.
        left_out: (N,) whether special tokens that a text spells at its ends are in none of its chunks.
        reading: how they were made, and how their answers are joined.
    """

    first: npt.NDArray[np.int64] = field(kw_only=True)
    spans: tuple[Span, ...] = field(kw_only=True)
    left_out: npt.NDArray[np.bool_] = field(kw_only=True)
    reading: Reading = field(kw_only=True)

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return len(self.first) - 1

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """(K,) which text each chunk is of."""
        return np.repeat(np.arange(self.texts), self.chunks)

    @property
    def chunks(self) -> npt.NDArray[np.int64]:
        """(N,) chunks of each text."""
        return np.diff(self.first)

    @property
    def text_lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each text, those that chunks share counted in each."""
        return np.add.reduceat(self.lengths, self.first[:-1]) if self.texts else np.zeros(0, dtype=np.int64)

    @property
    def cut(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a part of a text is in none of its chunks, as what it spells of special tokens at its ends."""
        return self.left_out

    def rows_of(self, texts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The chunks of some texts, one text after the other."""
        if not len(texts):
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([np.arange(self.first[text], self.first[text + 1]) for text in texts])
