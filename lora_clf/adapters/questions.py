"""What a pool is asked: which texts go to which adapters, and every different sequence of token ids among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.base.verbalizer import PromptTokenizer
from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.residency import Entry
    from lora_clf.base.tokenizer import Tokenizer

    Rows = NDArray[np.int64]

ONE_TEXT = "Expected a list of texts, got one text. Put it into a list: [text]."


def checked_texts(texts: Sequence[str], first: int = 0) -> list[str]:
    """The texts as a list; ``first`` is the caller's number of the first.

    Raises:
        UsageError: it is one text, or something in it is no text.
    """
    if isinstance(texts, str):
        raise UsageError(ONE_TEXT)
    texts = list(texts)
    for index, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise UsageError(f"texts[{index}] is a {type(text).__name__}, expected a text (str).")
    return texts


def rows_by_name(texts: Sequence[str], adapter: str | Sequence[str]) -> dict[str, Rows]:
    """Which texts each adapter gets; ``adapter`` is one name for all of them, or one for each.

    Raises:
        UsageError: not as many names as texts, or something that is no name.
    """
    if isinstance(adapter, str):
        return {adapter: np.arange(len(texts), dtype=np.int64)}
    names = list(adapter or ())
    if len(names) != len(texts):
        raise UsageError(f"{len(texts)} texts and {len(names)} names of adapters came; expected one name a text.")
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise UsageError(
                f"adapter[{row}] is {name!r}, expected the name of an adapter: the base alone has no head to "
                "answer with."
            )
        found.setdefault(name, []).append(row)
    return {name: np.array(rows, dtype=np.int64) for name, rows in found.items()}


@dataclass(frozen=True, eq=False)
class Questions:
    """Texts as adapters read them.

    Attributes:
        ids: every different sequence of ids, longest first. The order depends on the sequences alone, so that
            permuted texts get the same batches.
        places: for each adapter the sequence that each of its texts is.
        truncated: for each adapter which of its texts it reads a part of only.
    """

    ids: list[NDArray[np.int32]]
    places: dict[Entry, Rows]
    truncated: dict[Entry, NDArray[np.bool_]]


def encoded(tokenizer: Tokenizer, texts: Sequence[str], asked: Mapping[Entry, Rows]) -> Questions:
    """The texts' ids, made once for all adapters that cut at the same length and side and have the same prompt."""
    kinds: dict[tuple[int, str, tuple[str, ...]], list[Entry]] = {}
    for entry in asked:
        said = entry.header.verbalizer
        prompt = () if said is None else (said["template"], *said["words"])
        kinds.setdefault((entry.header.max_length, entry.header.truncation, prompt), []).append(entry)
    known: dict[bytes, NDArray[np.int32]] = {}
    read = {}
    for (max_length, truncation, prompt), entries in kinds.items():
        rows = np.unique(np.concatenate([asked[entry] for entry in entries]))
        side: Any = truncation
        reader = PromptTokenizer(tokenizer, prompt[0], prompt[1:]) if prompt else tokenizer
        tokens = reader.encode([texts[row] for row in rows], max_length, side)
        keys = [ids.tobytes() for ids in tokens.ids]
        known.update(zip(keys, tokens.ids, strict=True))
        read[max_length, truncation, prompt] = rows, keys, tokens.truncated
    ordered = sorted(known, key=lambda key: (-len(key), key))
    numbers = {key: number for number, key in enumerate(ordered)}
    places, truncated = {}, {}
    for kind, entries in kinds.items():
        rows, keys, cut = read[kind]
        sequences = np.fromiter((numbers[key] for key in keys), np.int64, len(keys))
        for entry in entries:
            chosen = np.searchsorted(rows, asked[entry])
            places[entry], truncated[entry] = sequences[chosen], cut[chosen]
    return Questions([known[key] for key in ordered], places, truncated)
