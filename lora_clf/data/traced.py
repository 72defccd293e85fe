"""A text made out of another one, with the place in the other one that each of its characters came from.

What is cleaned or normalised before it is read can so be shown where the user wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of a text, the last one left out."""

    start: int
    end: int


class Edit(NamedTuple):
    """What to put in place of some characters, and why."""

    start: int
    end: int
    put: str
    kind: str


@dataclass(frozen=True, eq=False)
class Traced:
    """A text and where it came from.

    Attributes:
        text: the text.
        starts, ends: for each character the span of the original that it stands for (len(text),); None where the text
            is the original itself.
    """

    text: str
    starts: NDArray[np.int64] | None = None
    ends: NDArray[np.int64] | None = None

    def span(self, start: int, end: int) -> Span:
        """Where characters ``start`` to ``end`` stand in the original."""
        if self.starts is None or self.ends is None:
            return Span(start, end)
        if start >= end:
            at = int(self.starts[start]) if start < len(self.starts) else int(self.ends[-1]) if len(self.ends) else 0
            return Span(at, at)
        return Span(int(self.starts[start]), int(self.ends[end - 1]))

    def piece(self, start: int, end: int) -> Traced:
        """A part of the text, traced to the same original."""
        starts, ends = self._places()
        return Traced(self.text[start:end], starts[start:end], ends[start:end])

    def edited(self, edits: Sequence[Edit]) -> Traced:
        """The text with ``edits`` made, which are in order and do not overlap."""
        if not edits:
            return self
        starts, ends = self._places()
        texts: list[str] = []
        first: list[NDArray[np.int64]] = []
        last: list[NDArray[np.int64]] = []
        done = 0
        for edit in edits:
            kept = slice(done, edit.start)
            texts += [self.text[kept], edit.put]
            first.append(starts[kept])
            last.append(ends[kept])
            if edit.put:  # all of it stands for all that it replaces
                at = self.span(edit.start, edit.end)
                first.append(np.full(len(edit.put), at.start, dtype=np.int64))
                last.append(np.full(len(edit.put), at.end, dtype=np.int64))
            done = edit.end
        texts.append(self.text[done:])
        return Traced("".join(texts), np.concatenate([*first, starts[done:]]), np.concatenate([*last, ends[done:]]))

    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.starts is None or self.ends is None:
            starts = np.arange(len(self.text), dtype=np.int64)
            return starts, starts + 1
        return self.starts, self.ends


def traced_to(original: str, kept: str) -> Traced:
    """``kept``, which is ``original`` with characters left out (and halves of surrogate pairs joined or replaced).

    Each character is looked for from where the one before was found. That is the right place where those left out are
    the later ones of a run, as in `lora_clf.base.text`.
    """
    if kept == original:
        return Traced(original)
    starts = np.empty(len(kept), dtype=np.int64)
    ends = np.empty(len(kept), dtype=np.int64)
    at = 0
    for place, character in enumerate(kept):
        while at < len(original) and original[at] != character and not _half(original[at], character):
            at += 1
        starts[place] = at
        at += 2 if character > "\uffff" and at < len(original) and original[at] != character else 1
        ends[place] = at
    return Traced(kept, starts, ends)


def _half(found: str, wanted: str) -> bool:
    """Whether ``found`` is half of a surrogate pair that ``wanted`` was made of."""
    return "\ud800" <= found <= "\udfff" and (wanted > "\uffff" or wanted == "\ufffd")
