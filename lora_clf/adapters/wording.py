"""How messages show what a file holds: briefly and on one line, however much of it there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SHOWN: Final = 5
LONGEST: Final = 80  # characters of one name or value


def brief(text: str, longest: int = LONGEST) -> str:
    """``text`` with its middle left out where it is long, and escaped where it could move a terminal's cursor."""
    if len(text) > longest:
        text = f"{text[: longest - 23]}...{text[-20:]}"
    return text if text.isprintable() else ascii(text)[1:-1]


def few(texts: Iterable[str], between: str = ", ", longest: int = LONGEST) -> str:
    """The first of ``texts``, each brief, and how many more there are."""
    found = list(texts)
    more = f"{between}and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return between.join(brief(text, longest) for text in found[:SHOWN]) + more
