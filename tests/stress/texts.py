"""Texts that nobody means: storms of marks, halves of characters, megabytes without a space, spelt special tokens.

Every one is drawn from a number, so that it can be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

SPECIALS: Final = (
    *("<|endoftext|>", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>"),
    *("<|im_start|>", "<bos>", "##a", "Ġ", "▁", "\u0120", "<0x0A>"),
)
WORDS: Final = ("win", "a", "free", "prize", "lunch", "at", "noon", "call", "now", "Grüße", "東京", "до", "5", "€")
SPACES: Final = " \t\n\r\v\f\u00a0\u2003\u2028\u3000\u200b"
MARKS: Final = "\u0301\u0300\u0308\u0323\u20d0\ufe0f\u034f\u0489"
INVISIBLE: Final = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u2800\u115f\u3164\U000e0041\U000e0001"
TURNS: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
CONTROLS: Final = "".join(map(chr, [*range(32), *range(127, 160)]))

Draw = random.Random


def _run(draw: Draw, characters: str, longest: int = 3000) -> str:
    return "".join(draw.choices(characters, k=draw.randrange(1, longest)))


def _words(draw: Draw, most: int = 12) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randrange(most)))


def _surrogates(draw: Draw) -> str:
    return "".join(chr(draw.randrange(0xD800, 0xE000)) for _ in range(draw.randrange(1, 50)))


def _special(draw: Draw) -> str:
    parts = [draw.choice((draw.choice(SPECIALS), draw.choice(WORDS), " ", "")) for _ in range(draw.randrange(1, 30))]
    return "".join(parts)


def _anything(draw: Draw) -> str:
    return "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(1, 300)))


KINDS: Final[Mapping[str, Callable[[Draw], str]]] = {
    "empty or white space": lambda draw: draw.choice(("", " ", "\n", "\t" * 9, SPACES * draw.randrange(50))),
    "NUL": lambda draw: "\0" * draw.randrange(1, 5000) + _words(draw) + "\0" * draw.randrange(100),
    "control characters": lambda draw: _words(draw) + _run(draw, CONTROLS) + _words(draw),
    "lone surrogates": lambda draw: _words(draw) + _surrogates(draw) + _words(draw),
    "surrogate pairs in halves": lambda draw: "".join(draw.choices("\ud83d\ude00", k=draw.randrange(40))),
    "combining storm": lambda draw: _words(draw) + _run(draw, MARKS) + _words(draw) + _run(draw, MARKS),
    "marks on every letter": lambda draw: "".join(letter + _run(draw, MARKS, 30) for letter in _words(draw)),
    "invisible": lambda draw: _run(draw, INVISIBLE) + _words(draw) + _run(draw, INVISIBLE),
    "right to left": lambda draw: _run(draw, TURNS, 50) + "مرحبا " + _words(draw) + _run(draw, TURNS, 50) + "שלום",
    "special tokens": _special,
    "special tokens in a storm": lambda draw: _run(draw, MARKS + INVISIBLE, 100).join([_special(draw), _special(draw)]),
    "long and no space": lambda draw: draw.choice(("a", "0", "é", "東", "😀", "=", "aB")) * draw.randrange(1, 20_000),
    "any code points": _anything,
    "nested brackets": lambda draw: draw.choice("([{<\"'") * draw.randrange(1, 5000),
    "emoji joined": lambda draw: "\u200d".join(draw.choices("👩👨👧🏳🌈❤🔥", k=draw.randrange(1, 500))),
}  # fmt: skip


def nonsense(seed: int, number: int) -> tuple[str, str]:
    """The text of that number: its kind, and itself."""
    draw = random.Random(f"{seed}/{number}")
    kind = draw.choice(list(KINDS))
    text = KINDS[kind](draw)
    if draw.random() < 0.1:  # two kinds at once
        text += KINDS[draw.choice(list(KINDS))](draw)
    return kind, text


GIANT: Final = 10_000_000  # characters

GIANTS: Final[Mapping[str, Callable[[], str]]] = {
    "one letter": lambda: "a" * GIANT,
    "digits": lambda: "1234567890" * (GIANT // 10),
    "ideographs": lambda: "東京" * (GIANT // 2),
    "emoji": lambda: "😀" * GIANT,
    "punctuation": lambda: "=-" * (GIANT // 2),
    "random letters": lambda: "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=100_000)) * 100,
    "ordinary words": lambda: "win a free prize now " * (GIANT // 21),
    "special tokens": lambda: "<|endoftext|>[SEP]" * (GIANT // 18),
    "white space": lambda: " " * GIANT,
    "NUL": lambda: "\0" * GIANT,
    "combining marks": lambda: "\u0301" * GIANT,
    "lone surrogates": lambda: "\ud800" * GIANT,
    "right to left": lambda: "\u202e" * GIANT,
    "invisible": lambda: "\u200b\u2060" * (GIANT // 2),
}  # fmt: skip
