"""DoRA through the peft library: direction and magnitude of each weight column train apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.errors import UsageError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers


@dataclass(frozen=True)
class DoRA(PeftLayers):
    """Train low-rank factors of each weight's direction and a vector of magnitudes (Liu et al. 2024, section 4).

    A layer's weight becomes m (W + s B A) / ||W + s B A||, the norm taken for each output. It has rank (in + out)
    + out numbers.

    Attributes:
        rank: the inner width r of the factors.
        alpha: the scaling's numerator; the change of direction is multiplied by alpha / rank.
        dropout: the share of the factors' inputs that is dropped in training.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "low-rank factors and magnitudes of linear layers (peft library) and the head"
    learning_rate: ClassVar[float] = 7e-4
    order: ClassVar[int] = 54
    method: ClassVar[str] = "LORA"
    peft_ending: ClassVar[str] = ".lora_A.weight"
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "rank": (2, 4, 8, 16, 32)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.rank < 1 or not (self.alpha > 0 and math.isfinite(self.alpha)) or not 0 <= self.dropout < 1:
            raise UsageError(
                f"{self.name}: --rank {self.rank} --alpha {self.alpha} --dropout {self.dropout}: expected a rank of at "
                "least 1, a positive alpha and a dropout from 0 up to, not including, 1."
            )

    def peft_settings(self) -> dict[str, Any]:
        """LoRA's, with ``use_dora``."""
        return {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "use_dora": True}
