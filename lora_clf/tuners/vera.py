"""VeRA through the peft library: one pair of random frozen factors for all layers, two trained vectors a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lora_clf.errors import UsageError
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers


@dataclass(frozen=True)
class VeRA(PeftLayers):
    """Train two vectors a layer that scale shared random factors (Kopiczko et al. 2024, section 3).

    The change is diag(b) B diag(d) A with B and A random, frozen and the same in all layers: out + rank numbers a
    layer. A and B are drawn anew from ``projection_seed`` on loading.

    Attributes:
        rank: the inner width r of the factors; large, since nothing of that size trains.
        dropout: the share of the factors' inputs that is dropped in training.
        projection_seed: what the frozen factors are drawn from.
    """

    rank: int = 256
    dropout: float = 0.0
    projection_seed: int = 0

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "vectors that scale shared random factors (peft library) and the head"
    learning_rate: ClassVar[float] = 3e-2
    order: ClassVar[int] = 56
    method: ClassVar[str] = "VERA"
    peft_ending: ClassVar[str] = ".vera_lambda_b"
    averages: ClassVar[bool] = False
    not_sizes: ClassVar[tuple[str, ...]] = ("projection_seed",)
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.rank < 1 or not 0 <= self.dropout < 1 or self.projection_seed < 0:
            raise UsageError(
                f"{self.name}: --rank {self.rank} --dropout {self.dropout} --projection-seed {self.projection_seed}: "
                "expected a rank of at least 1, a dropout from 0 up to, not including, 1, and a seed of at least 0."
            )

    def peft_settings(self) -> dict[str, Any]:
        """Without the projection in the file, which its seed gives again."""
        return {
            "r": self.rank,
            "vera_dropout": self.dropout,
            "projection_prng_key": self.projection_seed,
            "save_projection": False,
        }
