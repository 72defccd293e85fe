"""The heads of many adapters at once: from pooled vectors to logits.

Heads of one kind (pooling and number of classes) that are a single linear layer are stacked and run as one product;
heads with more in them run adapter by adapter, once a batch. Everything here is in fp32. Threads may ask at once.
Shapes: n vectors, D width, C classes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_clf.base.head import make_head

if TYPE_CHECKING:
    from lora_clf.base.base import Base

_STACKED: Final = 1 << 22  # numbers of weights that are copied for one product at most


class HeadKind:
    """What heads of one pooling and number of classes have in common.

    Attributes:
        pooling: how the pooled vector is made: "mean", "first" or "last".
        uses_pooler: whether the base's pooler stands between.
        classes: how many logits.
        shapes: of the tensors, by name.
    """

    def __init__(self, base: Base, pooling: str, classes: int) -> None:
        with torch.device("meta"):
            self._template = make_head(base.architecture, base.config, classes, pooling)
        self._template.requires_grad_(False).eval()
        self.pooling, self.uses_pooler = self._template.pooling, self._template.uses_pooler
        self.classes = classes
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._template.state_dict().items()}
        linears = [name for name, module in self._template.named_modules() if isinstance(module, nn.Linear)]
        prefix = linears[0]
        single = len(linears) == 1 and set(self.shapes) <= {f"{prefix}.weight", f"{prefix}.bias"}
        self._linear = (f"{prefix}.weight", f"{prefix}.bias") if single else None
        self._own = threading.local()

    def logits(self, vectors: Tensor, runs: Sequence[tuple[Mapping[str, Tensor], int]]) -> Tensor:
        """Logits of vectors whose heads differ: (n, D) -> (n, C).

        Args:
            vectors: pooled.
            runs: the tensors of a head and how many of the vectors are its own, one after the other.
        """
        if self._linear is None or len(runs) == 1:
            return self._one_by_one(vectors, runs)
        share = math.gcd(*(count for _, count in runs))
        heads = [head for head, count in runs for _ in range(count // share)]
        weight_name, bias_name = self._linear
        if len(heads) * heads[0][weight_name].numel() > _STACKED:
            return self._one_by_one(vectors, runs)
        weight = torch.stack([head[weight_name] for head in heads])  # (n / share, C, D)
        grouped = vectors.view(len(heads), share, -1)
        if bias_name in self.shapes:
            bias = torch.stack([head[bias_name] for head in heads]).unsqueeze(1)
            return torch.baddbmm(bias, grouped, weight.transpose(1, 2)).view(-1, self.classes)
        return torch.bmm(grouped, weight.transpose(1, 2)).view(-1, self.classes)

    def _one_by_one(self, vectors: Tensor, runs: Sequence[tuple[Mapping[str, Tensor], int]]) -> Tensor:
        found, start = [], 0
        for head, count in runs:
            part = vectors[start : start + count]
            if self._linear is not None:
                found.append(F.linear(part, head[self._linear[0]], head.get(self._linear[1])))
            else:
                found.append(torch.func.functional_call(self._mine, dict(head), (part,)))
            start += count
        return torch.cat(found)

    @property
    def _mine(self) -> nn.Module:
        """The template of this thread: a head's tensors are put into it while it runs."""
        if not hasattr(self._own, "template"):
            self._own.template = deepcopy(self._template)
        template: nn.Module = self._own.template
        return template
