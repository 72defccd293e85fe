"""Full fine-tuning: every weight of the base and the head are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.base.view import View
from lora_clf.tuners.base import Tuned, Tuner, rates_around, unfreeze


@dataclass(frozen=True)
class Full(Tuner):
    """Train every weight that the logits depend on (Devlin et al. 2019, section 4)."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "every weight and the head"
    learning_rate: ClassVar[float] = 1e-4
    order: ClassVar[int] = 30
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def prepare(self, view: View) -> Tuned:
        """Take the whole backbone as the view's own."""
        return unfreeze(self, view, view.backbone.parameters())
