"""How much of the validation and test parts was already there in training: the leak of a split, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.data.near_copies import GRAM, nearest_and_method
from lora_clf.errors import unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.data.corpus import Part

LEVELS: dict[str, float | None] = {"exact": None, "0.7": 0.7, "0.5": 0.5}
ALL = "all"


@dataclass(frozen=True, eq=False)
class LeakReport:
    """For each part but training, which of its texts have a copy in training.

    ``copies[part][level]`` is a mask (N,) over the rows of the part; the levels are ``exact`` (the same
    string), ``0.7`` and ``0.5`` (character-5-gram Jaccard at least that). ``method`` is ``exact`` or
    ``minhash``: how the copies were really looked for.
    """

    labels: dict[str, tuple[str, ...]]
    copies: dict[str, dict[str, NDArray[np.bool_]]]
    method: str

    def count(self, part: str, level: str, label: str | None = None) -> tuple[int, int]:
        """How many texts of ``part`` (of one class, or of all) have a copy in training, and of how many."""
        if part not in self.copies:
            raise unknown("part", part, self.copies)
        if level not in LEVELS:
            raise unknown("level", level, LEVELS)
        of = np.array([label is None or own == label for own in self.labels[part]], bool)
        return int((self.copies[part][level] & of).sum()), int(of.sum())

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values: parts, ``all`` and each class, then levels with count and share."""
        parts: dict[str, Any] = {}
        for part, labels in self.labels.items():
            rows: dict[str | None, dict[str, Any]] = {}
            for label in (None, *sorted(set(labels))):
                rows[label] = {"rows": self.count(part, "exact", label)[1]}
                for level in LEVELS:
                    found, total = self.count(part, level, label)
                    rows[label][level] = {"count": found, "share": found / total if total else 0.0}
            parts[part] = {ALL: rows.pop(None), "per_class": rows}
        return {"gram": GRAM, "method": self.method, "parts": parts}

    def as_text(self) -> str:
        """A table for people: one line for each part and class."""
        head = ("part", "class", "rows", "exact copy", "like >= 0.7", "like >= 0.5")
        lines: list[tuple[str, ...]] = [head]
        for part, content in self.as_dict()["parts"].items():
            for name, row in [(ALL, content[ALL]), *content["per_class"].items()]:
                shares = (f"{row[level]['count']} ({row[level]['share']:.1%})" for level in LEVELS)
                lines.append((part, name, str(row["rows"]), *shares))
        widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def find_leaks(train: Sequence[str], parts: Mapping[str, Part]) -> LeakReport:
    """Compare the texts of every part with those of training."""
    texts = [text for part in parts.values() for text in part.texts]
    likest, method = nearest_and_method(texts, train, 0.5)
    known = set(train)
    copies: dict[str, dict[str, NDArray[np.bool_]]] = {}
    start = 0
    for name, part in parts.items():
        value = likest[start : start + len(part)]
        start += len(part)
        copies[name] = {
            level: np.array([text in known for text in part.texts], bool) if least is None else value >= least
            for level, least in LEVELS.items()
        }
    return LeakReport({name: part.labels for name, part in parts.items()}, copies, method)
