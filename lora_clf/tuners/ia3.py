"""IA3: keys, values and inner activations are multiplied by learned vectors.

Liu et al. 2022 (section 3.3) rescale three things in a block, elementwise, with vectors that start at one::

    attention       softmax(Q (l_k * K)^T / sqrt d) (l_v * V)
    feed-forward    (l_ff * f(x W1)) W2

Scaling the output of a linear layer scales the rows of its weight and its bias; scaling its input scales the columns:
so the change can be merged. Where one layer makes query, key and value together the query is scaled as well, which is
also how peft does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import Coverage, linear_shape
from lora_clf.base.view import View
from lora_clf.tuners.base import Tuned, Tuner, rates_around
from lora_clf.tuners.linear_layer import Around, AroundConv1D, AroundLinear, layers_of


class _Scaled(Around):
    """The vector of a layer, in peft's shapes: (out, 1) for its output, (1, in) for its input."""

    ia3_l: nn.Parameter

    def add_vector(self, width: int, *, inputs: bool) -> None:
        """Give the layer its vector of ones."""
        weight: Tensor = self.weight  # type: ignore[assignment]
        shape = (1, width) if inputs else (width, 1)
        self.ia3_l = nn.Parameter(torch.ones(shape, dtype=torch.float32, device=weight.device))

    def before(self, x: Tensor) -> Tensor:
        return x * self.ia3_l.flatten().to(x.dtype) if len(self.ia3_l) == 1 else x

    def behind(self, y: Tensor) -> Tensor:
        return y if len(self.ia3_l) == 1 else y * self.ia3_l.flatten().to(y.dtype)


class _ScaledLinear(_Scaled, AroundLinear):
    """An ``nn.Linear`` with a vector."""


class _ScaledConv1D(_Scaled, AroundConv1D):
    """A ``Conv1D`` with a vector."""


@dataclass(frozen=True)
class IA3(Tuner):
    """Train vectors that scale keys, values and inner activations, and the head (Liu et al. 2022, section 3.3).

    A block of width D and inner width I gets 2 D + I numbers; 3 D + I where query, key and value are one layer.

    Attributes:
        blocks: how many of the last blocks are adapted; None means all.
    """

    blocks: int | None = None

    name: ClassVar[str] = "ia3"
    summary: ClassVar[str] = "vectors that scale keys, values and inner activations, and the head"
    learning_rate: ClassVar[float] = 3e-2
    order: ClassVar[int] = 70
    method: ClassVar[str] = "IA3"
    peft_ending: ClassVar[str] = ".ia3_l"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate)}

    def peft_layers(self, layers: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Those whose vector scales their input are the feed-forward ones."""
        inputs = [name for name, shape in layers.items() if shape[:1] == (1,)]
        return {"target_modules": list(layers), "feedforward_modules": inputs}

    def prepare(self, view: View) -> Tuned:
        """Give each key, value and closing feed-forward layer its vector."""
        architecture = view.architecture
        behind = architecture.attention[1:] or architecture.attention
        coverage = layers_of(view, (*behind, architecture.feed_forward_output), self.blocks)
        for name in coverage.modules:
            base: Any = view.backbone.get_submodule(name)
            layer = (_ScaledConv1D if isinstance(base, Conv1D) else _ScaledLinear)(base)
            inputs = name.endswith(f".{architecture.feed_forward_output}")
            layer.add_vector(linear_shape(base)[0 if inputs else 1], inputs=inputs)
            view.backbone.set_submodule(name, layer)
        return _IA3Tuned(self, view, coverage)


class _IA3Tuned(Tuned):
    """A view with vectors around some of its layers."""

    coverage: Coverage

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Decay would pull the vectors to zero, where one is what changes nothing: it is for the head alone."""
        vectors = [p for name, p in self.trainable().items() if name.endswith("ia3_l")]
        mine = {id(p) for p in vectors}
        groups = super().parameter_groups(learning_rate, weight_decay)
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in mine]
        groups.append({"params": vectors, "lr": learning_rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def _write_into(self, merged: View) -> None:
        for name in self.coverage.modules:
            vector: Any = self.view.backbone.get_submodule(name).ia3_l
            layer: Any = merged.backbone.get_submodule(name)
            scale = vector.detach().cpu().double()  # (1, in) or (out, 1), as nn.Linear holds its weight
            with_bias = layer.bias is not None and len(vector) > 1
            merged.own([layer.weight, layer.bias] if with_bias else [layer.weight])
            with torch.no_grad():
                layer.weight.copy_(layer.weight.cpu().double() * (scale.T if isinstance(layer, Conv1D) else scale))
                if with_bias:
                    layer.bias.copy_(layer.bias.cpu().double() * scale.flatten())
