"""Head-only tuning: the base stays as it is, the classification head is trained on its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lora_clf.base.view import View
from lora_clf.tuners.base import Tuned, Tuner, unfreeze


@dataclass(frozen=True)
class HeadOnly(Tuner):
    """Train the head alone ("linear probing", Alain and Bengio 2016)."""

    name: ClassVar[str] = "head-only"
    summary: ClassVar[str] = "the classification head"
    learning_rate: ClassVar[float] = 1e-2
    order: ClassVar[int] = 10

    def prepare(self, view: View) -> Tuned:
        """Leave the backbone frozen."""
        return unfreeze(self, view, [])
