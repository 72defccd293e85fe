"""Products of fp32 matrices on a CPU, by the quicker of the two libraries that PyTorch carries.

PyTorch gives them to MKL, Intel's own; oneDNN multiplies PyTorch's bf16 matrices and can do these. On an AMD processor
with AVX-512 it took less than half of MKL's time (benchmarks/alternatives.py), with other last bits, so it is taken on
processors with AVX-512 that are not Intel's. There is no public name for it: where PyTorch has no such operator, or on
any other processor, all is as PyTorch does it.

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.inference.processor import processor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b: (N, I), (O, I), (O) -> (N, O)."""
    product = onednn()
    if product is None or x.dtype != torch.float32 or not x.is_cpu:
        return F.linear(x, weight, bias)
    return product(x, weight, bias)


def times(x: Tensor, weight: Tensor) -> Tensor:
    """x W: (N, O), (O, I) -> (N, I)."""
    product = onednn()
    if product is None or x.dtype != torch.float32 or not x.is_cpu:
        return x @ weight
    return product(x, weight.t(), None)


def outer(dy: Tensor, x: Tensor) -> Tensor:
    """dyᵀ x, the gradient of a weight: (N, O), (N, I) -> (O, I)."""
    return times(dy.t(), x)


@cache
def onednn() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """oneDNN's x Wᵀ + b of fp32 numbers, where it is the quicker one; None elsewhere."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or "Intel" in processor():
        return None
    return _onednn()


def _onednn() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """oneDNN's product, where this PyTorch has it under the name that is known."""
    try:
        operator = torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return None

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = operator(x, weight, bias, "none", [], "")
        return found

    try:
        good = product(torch.ones(2, 3), torch.ones(3, 4).t(), torch.ones(4)).tolist() == [[4.0] * 4] * 2
    except (RuntimeError, TypeError):
        return None
    return product if good else None


def quicken(blocks: nn.Module) -> int:
    """Let plain linear layers multiply fp32 numbers the quicker way; how many will.

    Modules, names and parameters stay what they are. Call it when the view is ready to run and belongs to the caller.
    """
    if onednn() is None:
        return 0
    found = [module for module in blocks.modules() if type(module) in (nn.Linear, Conv1D)]
    for module in found:
        # An attribute of the object goes before the class's method.
        object.__setattr__(module, "forward", _Linear(module))
    return len(found)


class _Linear:
    """A linear layer, called in place of the module's own ``forward``."""

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)  # which holds this: a circle would outlive its run
        self._transposed = type(module) is Conv1D

    def __call__(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        module: Any = self._module()
        weight, bias = module.weight, module.bias
        own = torch.float32 == x.dtype == weight.dtype and x.is_cpu and not torch.is_autocast_enabled("cpu")
        if not own or not x.numel():
            usual: Tensor = type(module).forward(module, x)
            return usual
        if self._transposed:
            weight = weight.t()
        found: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return found.view(*x.shape[:-1], found.shape[-1])


class _Product(torch.autograd.Function):
    """x Wᵀ + b with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy, (need_x, need_weight, need_bias) = grads[0], ctx.needs_input_grad
        return (
            times(dy, weight) if need_x else None,
            outer(dy, x) if need_weight else None,
            dy.sum(0) if need_bias else None,
        )
