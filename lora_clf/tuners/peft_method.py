"""Whatever else the peft library has: its method by name, its settings as they are.

``--strategy peft --peft-type LOKR --set r=4,alpha=8``. What peft's own config or layers do not take is refused with
what peft says. `methods` lists the methods that stand around single linear layers and nothing else; others need a task,
a decoder, or a training loop of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from lora_clf.base.view import View
from lora_clf.errors import UnsupportedBaseError, UsageError, unknown
from lora_clf.tuners.base import rates_around
from lora_clf.tuners.peft_layers import PeftLayers

ELSEWHERE = {
    "PROMPT_TUNING": "prompt-tuning",
    "P_TUNING": "p-tuning",
    "PREFIX_TUNING": "prefix-tuning",
    "LN_TUNING": "layer-norm",
    "ADALORA": "adalora",
    "BOFT": "boft",
    "IA3": "ia3",
}
"""Methods with a strategy of their own, because peft's layers alone are not all of them."""
UNFIT = {
    "ADAPTION_PROMPT": "it is for Llama's generation only",
    "CARTRIDGE": "it makes past keys and values for a cache: see prefix-tuning",
    "CPT": "it is a prompt for language modelling: see prompt-tuning",
    "MULTITASK_PROMPT_TUNING": "it takes the number of a task beside each text",
    "FROD": "it decomposes all layers of the base together whenever an adapter is opened",
    "LILY": "what it makes of a text depends on the other texts of the batch",
    "POLY": "it takes the number of a task beside each text",
    "PVERA": "its answers are drawn at random",
    "TRAINABLE_TOKENS": "it trains embeddings of chosen tokens, no linear layer",
    "XLORA": "it mixes LoRA adapters that were trained before",
    "SHADOW": "it is a second network beside the base",
}
"""Methods that are no deterministic layers around single linear layers."""
MERGED = frozenset(
    [
        "ADAMSS",
        "BEFT",
        "DEFT",
        "DELORA",
        "GLORA",
        "GRALORA",
        "HIRA",
        "HRA",
        "LOHA",
        "LOKR",
        "LORA",
        "OFT",
        "PEANUT",
        "PSOFT",
        "TINYLORA",
        "UNILORA",
        "VERA",
    ]
)
"""Methods that peft merges exactly enough (tests/tuners/test_peft_method.py); the others are not merged."""

SAFE: Final[Mapping[str, tuple[Any, ...]]] = {
    "bias": ("none", None),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
"""Settings of which peft trains or rewrites the base's own weights, but for these values."""

_WHICH: Final = frozenset(
    ["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "task_type"]
)
_SHOWN: Final = 60


@dataclass(frozen=True)
class PeftMethod(PeftLayers):
    """Train any method of the peft library that stands around linear layers (see its documentation for the papers).

    The declarations are those of the default method, LoHa (Hyeon-Woo et al. 2022, section 2). peft's own defaults
    hold for everything that is not set. The learning rate is a guess that fits most of them.

    Attributes:
        peft_type: PEFT's name of the method, as LOHA, LOKR, HRA, FOURIERFT, RANDLORA.
        set: settings of peft's config for it, as r=4,alpha=8.
    """

    peft_type: str = "LOHA"
    set: str = ""

    name: ClassVar[str] = "peft"
    summary: ClassVar[str] = "what --peft-type puts around linear layers (peft library), and the head"
    learning_rate: ClassVar[float] = 2e-3
    order: ClassVar[int] = 99
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def __post_init__(self) -> None:
        """Check the settings, and say of a method that is not the default whether it can be merged."""
        super().__post_init__()
        found, name = methods(), self.peft_type.upper()
        if name in ELSEWHERE:
            raise UsageError(f"--peft-type {self.peft_type}: this is --strategy {ELSEWHERE[name]}.")
        if name in UNFIT:
            raise UsageError(f"--peft-type {self.peft_type} cannot be used for classification here: {UNFIT[name]}.")
        if name not in found:
            raise unknown("peft type", self.peft_type, found)
        self._given()
        object.__setattr__(self, "method", name)
        object.__setattr__(self, "mergeable", name in MERGED)

    def peft_settings(self) -> dict[str, Any]:
        """What ``--set`` says."""
        return self._given()

    def refusal(self, view: View) -> str | None:
        """What peft says when it is tried on a view of its own."""
        try:
            super().prepare(view.fresh())
        except UnsupportedBaseError as error:
            return str(error).partition(" base: ")[2].removesuffix(".")
        return None

    def check_base(self, view: View) -> None:
        """Nothing here: wrapping the layers is itself what finds out."""

    def _given(self) -> dict[str, Any]:
        """The settings by name; values are JSON, or text.

        Raises:
            UsageError: not key=value; a value that is no plain one; or the layers, which --targets names.
        """
        found: dict[str, Any] = {}
        for part in re.split(r",(?=\s*\w+=)", self.set.strip()) if self.set.strip() else []:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not key or not equals:
                raise UsageError(f"--set {self.set}: {part!r} is not key=value, as in --set r=4,alpha=8.")
            if key in _WHICH:
                raise UsageError(f"--set {key}: --targets and --blocks say which layers; the head is always trained.")
            try:
                found[key] = json.loads(value)
            except ValueError:
                found[key] = {"True": True, "False": False, "None": None}.get(value, value)
            if isinstance(found[key], (dict, list)):  # ranks and expressions without end, in a file from anywhere
                raise UsageError(
                    f"--set {key}={value[:_SHOWN]}: expected a number, a word, true or false. What peft takes layer by "
                    f"layer (rank_pattern and the like) cannot be set here; {self.name} treats all its layers alike."
                )
        for key, fine in SAFE.items():
            if key in found and found[key] not in fine:
                raise UsageError(
                    f"--set {key}={found[key]}: it changes weights of the base itself, which all adapters share. "
                    f"Expected {' or '.join(str(value) for value in fine if value is not None)}."
                )
        return found


def methods() -> tuple[str, ...]:
    """The names of peft's methods that this strategy takes."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    names = {str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_TUNER_MAPPING}
    return tuple(sorted(names - ELSEWHERE.keys() - UNFIT.keys()))
