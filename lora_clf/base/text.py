"""Text as people send it, made safe to tokenise without changing what an ordinary text says.

A cap on the raw text would be a way round a filter: 200,000 combining accents, spaces or control
characters in front of "free prize" and the prize is never seen. So the text is first *normalised*, as a
stream, and only then capped. Ordinary texts pass unchanged, bit for bit; what changes:

- control characters (NUL to BS, SO to US, DEL) are dropped; tab, line feed, VT, FF and CR stay;
- a surrogate pair becomes its character, a lone surrogate U+FFFD;
- in a run of characters that show nothing of their own (white space, combining marks, invisible and
  format characters) at most ``RUN`` are white space; more than ``RUN`` that are not are a storm, of which
  nothing stays: a storm that left its first marks behind would still change the word beside it. Shorter
  runs, double spaces among them, stay as they are. Scripts that stack marks need five or six a letter
  (Tibetan, Hebrew with vowels and accents), the flag of England seven.

The C1 controls (U+0080 to U+009F) are kept: in real messages they are quotation marks that someone decoded
with the wrong code page. They count as invisible, so a run of them is shortened.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Literal

import regex  # type: ignore[import-untyped]

from lora_clf.errors import UsageError

Side = Literal["right", "left"]
"""The side that truncation takes away: ``right`` keeps the start of a text, ``left`` its end."""

RUN: Final = 8
"""White-space characters kept of one run; marks and invisible characters that one run may have."""

CAP: Final = 32_768
"""Characters kept of one text when the caller names no cap."""

_STRIDE: Final = 65_536  # characters looked at in one go: what bounds the memory
_NEAR: Final = 256  # how far before the cap a white space is looked for

_MARKS = r"\p{M}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800\x80-\x84\x86-\x9f"
UNSEEN: Final = rf"[\s{_MARKS}]"
"""A character that shows nothing of its own, as a regular expression."""

_DROPPED = r"[\x00-\x08\x0e-\x1f\x7f]"
_ODD = regex.compile(rf"{_DROPPED}|[\ud800-\udfff]|[\s{_MARKS}]{{{RUN + 1},}}")
_CONTROL = regex.compile(rf"{_DROPPED}+")
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_LONE = regex.compile(r"(?:[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff])+")
_LONG_RUN = regex.compile(rf"[\s{_MARKS}]{{{RUN + 1},}}")
_SPACE = regex.compile(r"\s")
_MARK = regex.compile(r"\S")  # in a run, which has nothing else; twice as fast as its classes
_TRAILING = regex.compile(rf"(?r)[\s{_MARKS}]+\Z")  # (?r): searched from the end, one look when there is none


@dataclass(frozen=True, slots=True)
class Text:
    """A normalised text, and whether something that it said was cut off."""

    text: str
    truncated: bool


def normalise(text: str, cap: int = CAP, side: Side = "right") -> Text:
    """Returns the text ready to tokenise, at most ``cap`` characters long after normalising.

    Works through the text in strides and stops as soon as the cap is full (``side="left"``, which keeps the
    end, has to see all of it); the memory needed depends on ``cap``, not on the text.

    Raises:
        UsageError: ``cap`` is not positive, or ``side`` is neither "right" nor "left".
    """
    if cap < 1 or side not in ("right", "left"):
        raise UsageError(f"Cannot cap at {cap!r} characters, side {side!r}: give a positive cap, right or left.")
    if len(text) <= cap and _ODD.search(text) is None:
        return Text(text, False)
    kept, cut, pending, start = "", False, "", 0
    while start < len(text):
        end = start + _STRIDE
        piece = _CONTROL.sub("", pending + text[start:end])
        # The first half of a surrogate pair waits for the second, which may be in the next stride.
        half = piece[-1:] if end < len(text) and "\ud800" <= piece[-1:] <= "\udbff" else ""
        piece = _shorten(piece[: len(piece) - len(half)])
        # So does a run at the end, which may go on there. It is short by now, and still known for a storm.
        trailing = _TRAILING.search(piece)
        run = trailing[0] if trailing else ""
        kept += _LONG_RUN.sub(_without_storm, piece[: len(piece) - len(run)])
        pending = run + half
        if len(kept) > cap:
            if side == "right":
                return Text(kept[: _last_boundary(kept, cap)], True)
            kept, cut = kept[-cap - 1 :], True
        start = end
    kept += _LONG_RUN.sub(_without_storm, pending)
    if len(kept) <= cap:
        return Text(kept, cut)
    if side == "right":
        return Text(kept[: _last_boundary(kept, cap)], True)
    return Text(kept[_first_boundary(kept, cap) :], True)


def _shorten(text: str) -> str:
    """Applies the rules for surrogates and for runs to a piece of text without control characters."""
    if _SURROGATE.search(text) is not None:  # UTF-16 joins what is left: pairs
        text = _LONE.sub(_replaced, text).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    shortened: str = _LONG_RUN.sub(_keep_first, text)
    return shortened


def _replaced(match: regex.Match[str]) -> str:
    return "\ufffd" * len(match[0])


def _keep_first(match: regex.Match[str]) -> str:
    """Returns the first ``RUN`` white-space characters of a run and of others one more, in order.

    By the one more a storm is known for one, also where it goes on in the next stride.
    """
    run = match[0]
    firsts = chain(islice(_SPACE.finditer(run), RUN), islice(_MARK.finditer(run), RUN + 1))
    return "".join(run[position] for position in sorted({first.start() for first in firsts}))


def _without_storm(match: regex.Match[str]) -> str:
    """Returns a run that was shortened without its marks and invisible characters, where those are too many."""
    run = match[0]
    spaces = "".join(_SPACE.findall(run))
    return spaces if len(run) - len(spaces) > RUN else run


def _last_boundary(text: str, cap: int) -> int:
    """Where to cut so that at most ``cap`` characters stay in front: at a white space where one is near."""
    for position in range(cap, max(cap - _NEAR, 0), -1):
        if text[position].isspace():
            return position
    return cap


def _first_boundary(text: str, cap: int) -> int:
    """The same from the other end: at most ``cap`` characters stay behind it."""
    first = len(text) - cap
    for position in range(first, min(first + _NEAR, len(text) - 1)):
        if text[position - 1].isspace():
            return position
    return first
