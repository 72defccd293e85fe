"""Where a long text may be cut: at the ends of sentences, at turns of a conversation, at minutes of a recording.

Each function returns spans that follow one another and together are the whole text: nothing is dropped. What marks a
turn or a time is in `lora_clf.data.transcript`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Final

from lora_clf.data.traced import Span
from lora_clf.data.transcript import cues_in, labels_in, times_in

SEGMENTS: Final = ("windows", "turns", "minutes", "sentences")
"""How a text is cut into chunks: windows of the base's length, or one chunk for each of the others."""

# The end of a sentence: its mark, what closes behind it, and the white space in front of the next one; or a line break.
_END = re.compile(r"""(?<![.!?…])(?P<mark>[.!?…]++)["'”’»)\]]{0,9}\s++|[。！？]++["'”’»）」』]{0,9}\s*+|\n\s*+""")
_COMMON = "mr mrs ms dr prof st jr sr vs etc inc ltd co corp cf al e.g i.e approx dept est gen rev hon"
_ABBREVIATIONS: Final = frozenset(_COMMON.split(" "))
_NUMBERED: Final = frozenset({"no", "nos", "fig", "vol", "sec", "eq", "p", "pp"})  # "No. 5", but "He said no."
_LAST_WORD = re.compile(r"[^\W\d_](?:[\w.]*\w)?$")


def sentences(text: str) -> list[Span]:
    """The sentences of a text, each with the white space behind it.

    A full stop ends one where a blank and no lower-case letter follow, except behind an initial or a common English
    abbreviation; a line break always does.
    """
    return _between(text, (match.end() for match in _END.finditer(text) if _ends(text, match)))


def _ends(text: str, match: re.Match[str]) -> bool:
    if match["mark"] != "." or "\n" in match[0] or not match[0][1:].isspace():  # a quotation mark closes it too
        return True
    following = text[match.end() : match.end() + 1]
    if following.islower():
        return False
    word = _LAST_WORD.search(text, max(0, match.start() - 12), match.start())
    if word is None:
        return True
    if following.isdigit() and word[0].lower() in _NUMBERED:
        return False
    return word[0].lower() not in _ABBREVIATIONS and not (len(word[0]) == 1 and word[0].isupper())


def turns(text: str) -> list[Span]:
    """The turns of a conversation: from each speaker's label to the next; one span where there is no label."""
    above = {end: start for start, end in cues_in(text)}
    return _between(text, (above.get(label.line, label.line) for label in labels_in(text)))


def minutes(text: str, length: int = 1) -> list[Span]:
    """The parts of a transcript that begin in the same ``length`` minutes, by its time stamps; one span without any."""
    cuts = []
    now: int | None = None
    for time in times_in(text):
        part = int(time.seconds // (60 * length))
        if now is not None and part != now:
            cuts.append(time.line)
        now = part
    return _between(text, cuts)


def segmenter(kind: str, length: int = 1) -> Callable[[str], list[Span]]:
    """What cuts texts into segments of this kind (of `SEGMENTS`); "windows" leaves them whole."""
    known: Mapping[str, Callable[[str], list[Span]]] = {
        "windows": lambda text: [Span(0, len(text))],
        "turns": turns,
        "minutes": partial(minutes, length=length),
        "sentences": sentences,
    }
    return known[kind]


def _between(text: str, cuts: Iterable[int]) -> list[Span]:
    inside = sorted({cut for cut in cuts if 0 < cut < len(text)})
    return [Span(start, end) for start, end in pairwise([0, *inside, len(text)])]
