"""A linear layer of the base with something of a strategy's in front of it or behind it.

Each *is* the layer it adapts, as in `lora_clf.tuners.lora_scratch`: it takes over the base's own parameters, so that
names, precision and fast paths find a linear layer where one was. A strategy mixes its own `Around` into the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.base.targets import Coverage, expand_targets
from lora_clf.base.view import View


def layers_of(view: View, names: Sequence[str], blocks: int | None) -> Coverage:
    """The linear layers at these places of the last ``blocks`` blocks, as full names.

    A place is the whole path in a block: BERT's ``output.dense`` also ends ``attention.output.dense``, another layer.
    """
    architecture = view.architecture
    found = expand_targets(view.backbone, architecture, ",".join(names), blocks)
    depth = architecture.blocks.count(".") + 2  # of the path of a block
    modules = tuple(name for name in found.modules if name.split(".", depth)[-1] in names)
    return Coverage(modules, found.available, found.blocks, found.total_blocks)


class Around(nn.Module):
    """What a strategy does around a linear layer: nothing, until it says so."""

    def before(self, x: Tensor) -> Tensor:
        """What the layer gets in place of its input: (B, T, in) -> (B, T, in)."""
        return x

    def behind(self, y: Tensor) -> Tensor:
        """What stands in place of its output: (B, T, out) -> (B, T, out)."""
        return y


class AroundLinear(Around, nn.Linear):
    """An ``nn.Linear`` with something around it."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        return self.behind(F.linear(self.before(x), self.weight, self.bias))


class AroundConv1D(Around, Conv1D):
    """A transformers ``Conv1D`` with something around it."""

    def __init__(self, base: Conv1D) -> None:
        nn.Module.__init__(self)
        self.nx, self.nf = base.nx, base.nf
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) -> (B, T, out)."""
        x = self.before(x)
        return self.behind(torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], self.nf))
