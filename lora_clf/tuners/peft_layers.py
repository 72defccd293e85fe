"""What the strategies that run through peft's layers share: putting them into a view, naming, merging.

peft wraps each target layer in one of its own. Its random numbers are drawn from a generator of the view's, whatever
was drawn before; names are those of PEFT's files, in which the adapter's own name does not stand.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_clf.base.generator import seeded
from lora_clf.base.targets import Coverage, expand_targets
from lora_clf.base.view import View
from lora_clf.errors import NotMergeableError, TargetError, UnsupportedBaseError, UsageError
from lora_clf.tuners.base import Tuned, Tuner

ADAPTER = "default"  # what peft calls the one adapter of a view


@dataclass(frozen=True)
class PeftLayers(Tuner):
    """Layers of peft's around linear layers of the base.

    Attributes:
        targets: all, attention, attention+output, or comma-separated name endings.
        blocks: how many of the last blocks are adapted; None means all.
    """

    targets: str = "all"
    blocks: int | None = None

    method: ClassVar[str] = ""

    @abstractmethod
    def peft_settings(self) -> dict[str, Any]:
        """The fields of peft's config that are not its defaults, without the layers."""

    def prepare(self, view: View) -> PeftTuned:
        """Have peft wrap each target layer."""
        self.check_base(view)
        coverage = expand_targets(view.backbone, view.architecture, self.targets, self.blocks)
        model = inject(self, view, coverage, self.method, self.peft_settings(), self.during())
        return PeftTuned(self, view, coverage, model)

    def during(self) -> AbstractContextManager[object]:
        """What holds while peft works; no two threads are in there at once."""
        return nullcontext()


@dataclass(frozen=True)
class PeftBlocks(PeftLayers):
    """Layers of peft's that turn blocks of a linear layer's inputs.

    Attributes:
        block_size: inputs that are turned together.
        dropout: the share of the blocks that is left unturned in training.
    """

    block_size: int = 8
    dropout: float = 0.0

    averages: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.block_size < 2 or not 0 <= self.dropout < 1:
            raise UsageError(
                f"{self.name}: --block-size {self.block_size} --dropout {self.dropout}: expected blocks of at least 2 "
                "inputs and a dropout from 0 up to, not including, 1."
            )

    def refusal(self, view: View) -> str | None:
        """peft's layer is for ``nn.Linear`` only."""
        found = any(isinstance(module, Conv1D) for module in view.blocks.modules())
        return f"peft's {self.method} has no form for its Conv1D layers" if found else None


class PeftTuned(Tuned):
    """A view in which peft wrapped the layers of ``coverage``; ``model`` is peft's handle of it."""

    coverage: Coverage

    def __init__(self, tuner: Tuner, view: View, coverage: Coverage, model: Any) -> None:
        super().__init__(tuner, view, coverage)
        self.model = model

    def trainable(self) -> dict[str, nn.Parameter]:
        """What trains, by its name in PEFT's files."""
        return {saved_name(name): parameter for name, parameter in super().trainable().items()}

    def _write_into(self, merged: View) -> None:
        for name in self.coverage.modules:
            plain: Any = merged.backbone.get_submodule(name)
            layer: Any = copy.deepcopy(self.view.backbone.get_submodule(name)).cpu()
            layer.double()
            with torch.no_grad():
                layer.merge()
            if not layer.merged:
                raise NotMergeableError(f"peft does not merge what {self.tuner.name} put around {name}.")
            inside = layer.get_base_layer()
            changed = [plain.weight]
            if plain.bias is not None and not torch.equal(inside.bias.float(), plain.bias.cpu()):
                changed.append(plain.bias)
            merged.own(changed)
            with torch.no_grad():
                plain.weight.copy_(inside.weight)
                if len(changed) > 1:
                    plain.bias.copy_(inside.bias)


def inject(
    tuner: Tuner,
    view: View,
    coverage: Coverage,
    method: str,
    settings: dict[str, Any],
    during: AbstractContextManager[object] | None = None,
) -> Any:
    """Have peft put its layers around those of ``coverage``; peft's handle of the backbone.

    Args:
        tuner: for messages.
        view: it belongs to the caller, also where this fails.
        coverage: which layers.
        method: PEFT's name of the method.
        settings: of its config, without the layers.
        during: what holds while peft works.

    Raises:
        UsageError: settings that peft's config does not take.
        UnsupportedBaseError: peft cannot wrap these layers.
        TargetError: it wrapped others than it was asked to.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    kind = PEFT_TYPE_TO_CONFIG_MAPPING[method]  # type: ignore[index]
    takes = {field.name for field in fields(kind)}
    given = {"target_modules": list(coverage.modules), **settings}
    if "fan_in_fan_out" in takes:
        given["fan_in_fan_out"] = isinstance(view.backbone.get_submodule(coverage.modules[0]), Conv1D)
    before = {name: type(module) for name, module in view.backbone.named_modules()}
    base = {parameter.data_ptr() for parameter in view.backbone.parameters()}
    seed = view.generator(f"peft/{method}").initial_seed()
    with seeded(seed, view.device), warnings.catch_warnings(), during or nullcontext():
        warnings.simplefilter("ignore")  # about how it adjusts what does not fit
        try:
            config = kind(**given)
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{tuner.name}: peft's {method} does not take these settings: {_said(error)}") from error
        try:
            model: Any = PEFT_TYPE_TO_TUNER_MAPPING[method](view.backbone, config, ADAPTER)  # type: ignore[index]
        except Exception as error:  # whatever a method of another library makes of a layer it does not know
            raise UnsupportedBaseError(
                f"{tuner.name} cannot adapt this {view.architecture.model_type} base: peft's {method} says: "
                f"{_said(error)}."
            ) from error
    after = dict(view.backbone.named_modules())
    wrapped = {name for name, module in after.items() if name in before and type(module) is not before[name]}
    if wrapped != set(coverage.modules):
        odd = sorted(wrapped ^ set(coverage.modules))
        raise TargetError(f"peft's {method} adapted other layers than it was asked to: {', '.join(odd[:4])}.")
    # Nothing that peft lets train may lie in the base's own storage.
    view.own(p for p in view.backbone.parameters() if p.requires_grad and p.data_ptr() in base)
    return model


def saved_name(name: str) -> str:
    """A parameter's name in PEFT's files: without that of the adapter, and of DoRA's magnitudes without ``weight``."""
    plain = ".".join(part for part in name.split(".") if part != ADAPTER)
    return plain.removesuffix(".weight") if plain.endswith(".lora_magnitude_vector.weight") else plain


def _said(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
