"""Special tokens that a text spells at its ends, which are left out, and said to be.

``<|endoftext|>`` in front of a message is no part of what it says: a pipeline left it there, or somebody who wants a
filter to look at something else. As letters it would become several ids that no classifier has learnt to pass over. In
the middle of a text it is what the text is about, and stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import regex  # type: ignore[import-untyped]

from lora_clf.base.text import UNSEEN, Text

_SHAPE: Final = r"<\|[A-Za-z0-9_]{1,40}\|>"
"""How GPT-2, ChatML, Llama 3 and their relatives spell special tokens; words and markup are not spelt so."""


class Edges:
    """Finds spelt special tokens at the ends of texts.

    Args:
        special: the spellings of the base's own special tokens; what has the shape ``<|name|>`` is one with any base.
    """

    def __init__(self, special: Iterable[str]) -> None:
        names = sorted({name for name in special if name.strip()}, key=lambda name: (-len(name), name))
        token = "|".join([_SHAPE, *map(regex.escape, names)])
        self._front = regex.compile(rf"{UNSEEN}*(?:(?:{token}){UNSEEN}*)+")
        # What stands before the first of them may be an accent of the last letter; from the end it is one look.
        self._back = regex.compile(rf"(?r)\s*(?:(?:{token}){UNSEEN}*)+\Z")

    def span(self, said: str) -> tuple[int, int]:
        """Where what a text says begins and ends, without the special tokens that it begins or ends with.

        A text that is nothing else stays what it is.
        """
        start, end = 0, len(said)
        if not said[:1].isalnum() and (front := self._front.match(said)) is not None:
            start = front.end()
        if not said[-1:].isalnum() and (back := self._back.search(said, start)) is not None:
            end = back.start()
        return (start, end) if said[start:end].strip() else (0, len(said))

    def trim(self, text: Text) -> Text:
        """The text without the special tokens at its ends, and then marked as cut."""
        start, end = self.span(text.text)
        return text if end - start == len(text.text) else Text(text.text[start:end], True)
