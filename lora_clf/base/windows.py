"""Cutting what is longer than a base reads into windows: at ends of sentences where that can be, with overlap.

Windows are slices of the text, each a text by itself for the tokenizer: special tokens stand around every one of them,
and what is spelled like one stays text. Together they hold the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lora_clf.data.segments import sentences
from lora_clf.data.traced import Span

Count = Callable[[Sequence[str]], list[int]]
"""How many tokens each of some texts has, without special ones."""

_WORDS = re.compile(r"\S+\s*")


@dataclass(frozen=True)
class _Piece:
    """A slice of a text that is not cut further, and its tokens."""

    start: int
    end: int
    tokens: int


def windows(texts: Sequence[str], count: Count, *, room: int, characters: int, overlap: int) -> list[list[Span]]:
    """The windows of each text, first to last; a text that fits is one window.

    A window ends behind a sentence; a sentence that is longer than a window is cut between words, and a word that is
    longer between characters. The next window begins with the last sentences of the one before, as many as have at most
    ``overlap`` tokens.

    Args:
        texts: normalised texts.
        count: counts tokens.
        room: tokens that a window may have, without special ones.
        characters: what it may have of those.
        overlap: tokens that neighbouring windows share at most; below ``room``.
    """
    whole = count(texts)
    found: list[list[Span]] = []
    for text, tokens in zip(texts, whole, strict=True):
        if tokens <= room and len(text) <= characters:
            found.append([Span(0, len(text))])
            continue
        pieces = _pieces(text, count, room, characters)
        found.append(_fitting(text, _packed(pieces, room, characters, overlap), count, room))
    return found


def _pieces(text: str, count: Count, room: int, characters: int) -> list[_Piece]:
    """The sentences of a text, those that do not fit in smaller pieces."""
    spans = sentences(text)
    counts = count([text[start:end] for start, end in spans])
    pieces: list[_Piece] = []
    for (start, end), tokens in zip(spans, counts, strict=True):
        if tokens <= room and end - start <= characters:
            pieces.append(_Piece(start, end, tokens))
            continue
        starts = [start + match.start() for match in _WORDS.finditer(text[start:end])] or [start]
        words = [Span(first, last) for first, last in pairwise([start, *starts[1:], end])]
        for word, size in zip(words, count([text[a:b] for a, b in words]), strict=True):
            pieces += _halves(text, word, size, count, room, characters)
    return pieces


def _halves(text: str, span: Span, tokens: int, count: Count, room: int, characters: int) -> list[_Piece]:
    """A word that may be longer than a window, cut in two as often as is needed."""
    waiting, done = [(span, tokens)], []
    while waiting:
        (start, end), size = waiting.pop()
        if (size <= room and end - start <= characters) or end - start == 1:
            done.append(_Piece(start, end, size))
            continue
        middle = (start + end) // 2
        left, right = count([text[start:middle], text[middle:end]])
        waiting += [(Span(middle, end), right), (Span(start, middle), left)]
    return done


def _packed(pieces: list[_Piece], room: int, characters: int, overlap: int) -> list[Span]:
    """As many pieces a window as fit, each with the last ones of the window before."""
    found: list[Span] = []
    first = new = 0
    while new < len(pieces):
        tokens = sum(piece.tokens for piece in pieces[first:new])
        last = new
        while last < len(pieces) and (
            last == new
            or (tokens + pieces[last].tokens <= room and pieces[last].end - pieces[first].start <= characters)
        ):
            tokens += pieces[last].tokens
            last += 1
        while first < new and (tokens > room or pieces[last - 1].end - pieces[first].start > characters):
            tokens -= pieces[first].tokens  # what is new goes before what is shared
            first += 1
        found.append(Span(pieces[first].start, pieces[last - 1].end))
        new = first = last
        shared = 0
        while first > 0 and shared + pieces[first - 1].tokens <= overlap and found[-1].start < pieces[first - 1].start:
            first -= 1
            shared += pieces[first].tokens
    return found


def _fitting(text: str, spans: list[Span], count: Count, room: int) -> list[Span]:
    """The windows, halved where pieces have more tokens together than apart."""
    counts = count([text[start:end] for start, end in spans])
    if all(tokens <= room for tokens in counts):
        return spans
    found: list[Span] = []
    for (start, end), tokens in zip(spans, counts, strict=True):
        if tokens <= room or end - start == 1:
            found.append(Span(start, end))
            continue
        middle = (start + end) // 2
        blank = text.rfind(" ", start + 1, middle)
        middle = blank if blank > start else middle
        found += _fitting(text, [Span(start, middle), Span(middle, end)], count, room)
    return found
