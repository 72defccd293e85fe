"""Precision: which numbers the frozen bulk of the work is done in.

What trains, the head and the loss stay in fp32. ``bf16`` runs the matrix products in bfloat16 under autocast, with
the frozen matrices cast once instead of at every step; a block that is one node holds its states in bf16 as well. On a
CPU without native bf16 that is 40 to 500 times slower than fp32, so ``auto`` asks the processor's flags, never a
stopwatch (benchmarks/precision.py measures both).
``fp16`` is for CUDA devices that are older than bf16; its gradients need the loss scaled (Micikevicius et al. 2018,
section 3.2), which the loop does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from lora_clf.base.targets import LINEAR
from lora_clf.base.view import View
from lora_clf.errors import UsageError, unknown

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def has_native_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def resolve_precision(name: str, device: torch.device) -> str:
    """What a ``--precision`` value means on ``device``: "fp32", "bf16" or "fp16".

    Raises:
        UsageError: unknown name, bf16 on a device that has no native bf16, or fp16 on other than CUDA.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "fp16":
        if device.type != "cuda":
            raise UsageError(f"--precision fp16 is for CUDA; this device is {device.type}. Use auto, bf16 or fp32.")
        return name
    native = has_native_bf16(device)
    if name == "auto":
        return "bf16" if native else "fp32"
    if name == "bf16" and not native:
        raise UsageError(f"--precision bf16: this {device.type} has no native bf16 and would be far slower. Use fp32.")
    return name


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a view is run, for "fp32", "bf16" or "fp16", whatever autocast the caller is in.

    Raises:
        UsageError: another name; "auto" has to be resolved first.
    """
    if precision == "fp32":
        ambient = torch.is_autocast_enabled(device.type)
        return torch.autocast(device.type, enabled=False) if ambient else nullcontext()
    if precision not in _HALVES:
        raise unknown("precision", precision, ("fp32", *_HALVES))
    return torch.autocast(device.type, dtype=_HALVES[precision])


def cast_frozen(view: View, precision: str) -> None:
    """Cast the frozen matrices of the blocks once, instead of at every step under autocast."""
    if precision == "fp32":
        return
    for module in view.blocks.modules():
        if isinstance(module, LINEAR):
            for parameter in (module.weight, module.bias):
                if isinstance(parameter, nn.Parameter) and not parameter.requires_grad:
                    parameter.data = parameter.data.to(_HALVES[precision])
