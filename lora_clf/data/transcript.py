"""Transcripts: who speaks, when, and what a recording leaves in a text that says nothing.

Known are labels in front of a line (``JOHN SMITH: ...``, ``>> Anna (00:12): ...``), a name with a time alone on its
line, WebVTT's ``<v Anna>``; times in brackets, in the cue lines of SRT and WebVTT and in front of a line. Cleaning
numbers the speakers in the order in which they first speak (a name is no evidence on people that were never seen), and
takes out time stamps and English filler words. What is ambiguous stays: "12:30 suits me", "5 mm", "I like it".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from lora_clf.data.traced import Edit

CLEANINGS: Final = ("none", "transcript")

# Every repetition is bounded or starts where a run does, so that no text takes more than linear time.
_B = r"[ \t]{0,9}"
_TIME = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_LONG_TIME = r"\d{1,2}:\d{2}:\d{2}(?:[.,]\d{1,3})?"
_LETTERS = r"[\w.'’&-]{0,40}"
_NAME = rf"(?:[^\W\d_a-z]|(?=speaker\b)){_LETTERS}(?:[ \t]{{1,9}}[^\W_]{_LETTERS}){{0,3}}"
_STAMP = rf"[\[(<]{_B}{_TIME}(?:{_B}(?:-->|[-–—]){_B}{_TIME})?{_B}[\])>]"

# One line's head: times and a label in any of the usual orders. A bare time counts where it has seconds and hours,
# where a label follows, or where it stands alone.
_LABEL = re.compile(
    rf"^{_B}(?:-[ \t]{{1,9}})?(?:(?:{_STAMP}|{_TIME}){_B}(?:[-–]{_B})?)?"
    rf"(?P<label>(?:>>+{_B})?(?P<name>{_NAME}){_B}(?:{_STAMP}|{_TIME})?{_B}:(?=\s|$){_B})",
    re.MULTILINE,
)
_NAME_AND_TIME = re.compile(
    rf"^{_B}(?P<label>(?P<name>{_NAME})[ \t]{{1,9}}(?:{_STAMP}|{_TIME}){_B}(?:\r?\n|$))", re.MULTILINE
)
_VOICE = re.compile(r"(?P<label><v(?:\.[\w.]{1,40})?[ \t]{1,9}(?P<name>[^<>\n]{1,80})>[ \t]{0,9})")
_VOICE_END = re.compile(r"</v>")

_CUE = re.compile(rf"^(?:{_B}\d{{1,9}}{_B}\r?\n)?{_B}(?P<time>{_TIME}){_B}-->{_B}{_TIME}[^\n]*(?:\n|$)", re.MULTILINE)
_BRACKETED = re.compile(rf"[\[(<]{_B}(?P<time>{_TIME})(?:{_B}(?:-->|[-–—]){_B}{_TIME})?{_B}[\])>]{_B}")
_LEADING = re.compile(
    rf"^{_B}(?:(?P<time>{_LONG_TIME})(?=\s|$)"
    rf"|(?P<short>{_TIME})(?={_B}(?:\r?\n|$)|[ \t]{{1,9}}(?:>>+{_B})?{_NAME}{_B}:\s))"
    rf"{_B}(?:[-–][ \t]{{1,9}})?",
    re.MULTILINE,
)
_IN_LABEL = re.compile(rf"(?<![\d:]){_TIME}(?![\d:])")

_FILLER = r"(?:u+m+|u+h+m*|uh-?huh|e+rm+|hm+|mm-?hm+|mhm+|(?<!\d )(?<!\d)mm+|[äÄ]+h+m*)(?![\w'’-])"
_FILLERS = re.compile(
    rf"(?P<before>,?{_B})(?<![\w'’-])(?:{_FILLER}(?:[,. \t…]{{0,9}}(?={_FILLER}))?)+(?P<after>,|\.\.\.|…)?",
    re.IGNORECASE,
)
_PHRASES = re.compile(r",[ \t]{1,9}(?:you know|I mean|sort of|kind of|like)(?=,)", re.IGNORECASE)
_OPENS = re.compile(r"(?:^|[.!?…\n:][\"'”’)\]]*)[ \t]*$")
_CLOSES = re.compile(r"[.!?…]{0,9}[ \t]{0,9}")


class Label(NamedTuple):
    """A speaker's label: where its line begins, where it stands itself, and whose it is."""

    line: int
    start: int
    end: int
    speaker: str


class Time(NamedTuple):
    """A time stamp: where its line or it begins, where it stands, and the seconds that it says."""

    line: int
    start: int
    end: int
    seconds: float


_Found = TypeVar("_Found", Label, Time)


@dataclass(frozen=True)
class Cleaning:
    """What is taken out of one transcript.

    Attributes:
        edits: in order; ``kind`` is "speaker", "timestamp" or "filler".
        speakers: the names, in the order in which they first speak: number 1 is the first.
    """

    edits: tuple[Edit, ...]
    speakers: tuple[str, ...]


def labels_in(text: str) -> list[Label]:
    """The speakers' labels of a transcript, in order; names are compared without case, blanks and times."""
    found = []
    for pattern in (_LABEL, _NAME_AND_TIME, _VOICE):
        for match in pattern.finditer(text):
            speaker = " ".join(_IN_LABEL.sub(" ", match["name"]).split()).strip(" .-").casefold()
            found.append(Label(_line(text, match.start()), match.start("label"), match.end("label"), speaker))
    return _apart(found)


def times_in(text: str) -> list[Time]:
    """The time stamps of a transcript, in order: those in brackets, in cue lines, in labels and in front of lines."""
    labels = labels_in(text)
    begins = [label.start for label in labels]
    found = []
    for pattern in (_CUE, _LEADING, _BRACKETED):
        for match in pattern.finditer(text):
            start, line = match.start(), _line(text, match.start())
            place = bisect_right(begins, start) - 1
            inside = place >= 0 and start < labels[place].end
            begin = line if inside or not text[line:start].strip(" \t->") else start
            found.append(Time(begin, start, match.end(), _seconds(match["time"] or match["short"])))
    for label in labels:  # "Anna 00:12:", and a name with a time alone on its line
        for match in _IN_LABEL.finditer(text, label.start, label.end):
            found.append(Time(label.line, match.start(), match.end(), _seconds(match[0])))
    return _apart(found)


def cues_in(text: str) -> list[tuple[int, int]]:
    """Where the cue lines of SRT and WebVTT begin and end, which belong to what follows them."""
    return [match.span() for match in _CUE.finditer(text)]


def clean(text: str) -> Cleaning:
    """What to take out of a transcript: labels become ``Speaker 1: ``, time stamps and filler words go."""
    labels = labels_in(text)
    numbers: dict[str, int] = {}
    for label in labels:
        numbers.setdefault(label.speaker, len(numbers) + 1)
    edits = [Edit(each.start, each.end, f"Speaker {numbers[each.speaker]}: ", "speaker") for each in labels]
    edits += [Edit(match.start(), match.end(), "", "speaker") for match in _VOICE_END.finditer(text)]
    edits += [Edit(time.start, time.end, "", "timestamp") for time in times_in(text)]
    edits += _fillers(text)
    ordered: list[Edit] = []
    for edit in sorted(edits, key=lambda edit: edit.start):  # of two at one place the label
        if not ordered or edit.start >= ordered[-1].end:
            ordered.append(edit)
    return Cleaning(tuple(ordered), tuple(numbers))


def _fillers(text: str) -> list[Edit]:
    edits = [Edit(match.start(), match.end(), "", "filler") for match in _PHRASES.finditer(text)]
    for match in _FILLERS.finditer(text):
        start, end = match.span()
        opens = _OPENS.search(text, max(0, start - 8), start + len(match["before"])) is not None or start == 0
        if opens:  # "Um, I see." and "Um. I see.": what follows begins the sentence
            closing = _CLOSES.match(text, end)
            assert closing is not None
            edits.append(Edit(match.end("before"), closing.end(), "", "filler"))
            continue
        # A comma on either side was the filler's; one in front alone is the sentence's, unless that ends here.
        keeps = "," in match["before"] and match["after"] is None and text[end : end + 1] not in set(".!?…")
        edits.append(Edit(start, end, "," if keeps else "", "filler"))
    return edits


def _seconds(time: str) -> float:
    parts = [float(part) for part in time.replace(",", ".").split(":")]
    return sum(part * float(60**place) for place, part in enumerate(reversed(parts)))


def _line(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _apart(found: list[_Found]) -> list[_Found]:
    """Those found, in order, without those that stand inside another; of two at one place the longer."""
    kept: list[_Found] = []
    for each in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
    return kept
