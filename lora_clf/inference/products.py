"""Products of fp32 matrices on a CPU, by the quicker of the two libraries that PyTorch carries.

PyTorch gives them to MKL, Intel's own; oneDNN multiplies PyTorch's bf16 matrices and can do these. On an AMD processor
with AVX-512 it took less than half of MKL's time (benchmarks/alternatives.py), with other last bits, so it is taken on
processors with AVX-512 that are not Intel's. There is no public name for it: where PyTorch has no such operator, or on
any other processor, all is as PyTorch does it. `linear`, `times` and `outer` are for the inside of autograd functions:
oneDNN's operator has no gradient of its own. `affine` has one.

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.inference.original import Shortcut
from lora_clf.inference.processor import processor
from lora_clf.tuners.linear_layer import SameConv1D, SameLinear

_PACKED_FOR = 1024  # rows that the order of a weight is chosen for; it multiplies any number of them


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b: (N, I), (O, I), (O) -> (N, O)."""
    product = onednn()
    if product is None or x.dtype != torch.float32 or not x.is_cpu or not _dense(weight):
        return F.linear(x, weight, bias)
    return product(x if _dense(x) else x.contiguous(), weight, bias)


def times(x: Tensor, weight: Tensor) -> Tensor:
    """x W: (N, O), (O, I) -> (N, I)."""
    product = onednn()
    if product is None or x.dtype != torch.float32 or not x.is_cpu or not _dense(weight):
        return x @ weight
    return product(x if _dense(x) else x.contiguous(), weight.t(), None)


def outer(dy: Tensor, x: Tensor) -> Tensor:
    """dyᵀ x, the gradient of a weight: (N, O), (N, I) -> (O, I)."""
    return times(dy.t(), x)


def _dense(matrix: Tensor) -> bool:
    """Whether a matrix lies in memory without gaps, row by row or column by column.

    For one with gaps, as a third of the columns of a joined layer, oneDNN takes some hundreds of times as long.
    """
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def affine(x: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool = False) -> Tensor:
    """x Wᵀ + b with its gradients: (..., I), (O, I), (O) -> (..., O); with ``transposed`` W is (I, O), as in Conv1D."""
    flat = x.reshape(-1, x.shape[-1])  # (N, I)
    own = torch.float32 == x.dtype == weight.dtype and x.is_cpu and not torch.is_autocast_enabled("cpu")
    found: Tensor
    if own and x.numel() and onednn() is not None:
        found = _Product.apply(flat, weight.t() if transposed else weight, bias)  # type: ignore[no-untyped-call]
    elif transposed and bias is not None:
        found = torch.addmm(bias, flat, weight)
    else:
        return F.linear(x, weight.t() if transposed else weight, bias)
    return found.view(*x.shape[:-1], found.shape[-1])


class _Product(torch.autograd.Function):
    """x Wᵀ + b: (N, I), (O, I), (O) -> (N, O). An input is kept only where a gradient needs it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        need_x, need_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if need_weight else None, weight if need_x else None)
        ctx.columns = weight.stride(0) == 1
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy, (need_x, need_weight, need_bias) = grads[0], ctx.needs_input_grad
        return (
            times(dy, weight) if need_x else None,
            _outer_as(ctx.columns, dy, x) if need_weight else None,
            dy.sum(0) if need_bias else None,
        )


def _outer_as(columns: bool, dy: Tensor, x: Tensor) -> Tensor:
    """dyᵀ x (O, I), column by column in memory where its weight lies so, or it would be copied into that order."""
    return outer(x, dy).t() if columns else outer(dy, x)


def packed(weight: Tensor) -> Callable[[Tensor, Tensor | None], Tensor] | None:
    """x Wᵀ + b with a frozen bf16 W (O, I) in the order that oneDNN multiplies by, which it else makes at every call.

    The weight is copied. None where it is not in bf16 on a CPU, where PyTorch has no such operator, or where oneDNN is
    switched off, which is asked here and not at every product.
    """
    operators = _packing()
    if operators is None or weight.dtype != torch.bfloat16 or not weight.is_cpu or not _switched_on():
        return None
    reorder, multiply = operators
    ordered = reorder(weight, _PACKED_FOR)

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = multiply(x, ordered, bias, "none", [], "")
        return found

    return product


@cache
def _packing() -> tuple[Callable[..., Tensor], Callable[..., Tensor]] | None:
    """oneDNN's operators for weights in its own order, where this PyTorch has them and they work as they are known."""
    try:
        reorder = torch.ops.mkldnn._reorder_linear_weight.default
        multiply = torch.ops.mkldnn._linear_pointwise.default
        rows, inputs, outputs = 3, 32, 48
        x, weight, bias = (  # whole numbers whose sums bf16 has exactly
            (torch.arange(math.prod(shape), device="cpu") * 7 % 5 - 2).reshape(shape).to(torch.bfloat16)
            for shape in ((rows, inputs), (outputs, inputs), (outputs,))
        )
        found = multiply(x, reorder(weight, _PACKED_FOR), bias, "none", [], "")
        good = torch.equal(found.float(), x.float() @ weight.float().t() + bias.float())
    except (AttributeError, RuntimeError, TypeError):
        return None
    return (reorder, multiply) if good else None


def onednn() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """oneDNN's x Wᵀ + b of fp32 numbers, where it is the quicker one and switched on; None elsewhere."""
    return _quicker() if _switched_on() else None


def _switched_on() -> bool:
    """Whether the caller lets PyTorch use oneDNN."""
    return bool(torch.backends.mkldnn.enabled)


@cache
def _quicker() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """oneDNN's product on a processor where it is the quicker one."""
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
        x, weight, bias = (
            torch.ones(shape, device="cpu", dtype=torch.float32)  # whatever the caller's defaults are
            for shape in ((2, 3), (3, 4), (4,))
        )
        good = product(x, weight.t(), bias).tolist() == [[4.0] * 4] * 2
    except (RuntimeError, TypeError):
        return None
    return product if good else None


def quicken(blocks: nn.Module) -> int:
    """Let linear layers, the base's own and those of strategies, multiply fp32 numbers the quicker way; how many will.

    Modules, names and parameters stay what they are. Call it when the view is ready to run and belongs to the caller.
    """
    if onednn() is None:
        return 0
    found = 0
    for module in blocks.modules():
        method = "product" if isinstance(module, SameLinear | SameConv1D) else "forward"
        if method in vars(module) or (method == "forward" and type(module) not in (nn.Linear, Conv1D)):
            continue
        # An attribute of the object goes before the class's method.
        object.__setattr__(module, method, _Linear(module))
        found += 1
    return found


class _Linear(Shortcut):
    """The product of a linear layer, called in place of the module's own method."""

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)  # which holds this: a circle would outlive its run

    def __call__(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        module: Any = self._module()
        return affine(x, module.weight, module.bias, transposed=isinstance(module, Conv1D))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Linear:
        """Refused: the copy of a layer would go on computing with the weights of the first.

        Raises:
            TypeError: always.
        """
        raise TypeError("A layer that was made ready for a run belongs to it and cannot be copied.")
