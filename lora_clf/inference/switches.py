"""What besides the numbers themselves decides the last bits of a product of matrices: the machine and its switches."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch

from lora_clf.inference.processor import processor
from lora_clf.inference.products import onednn

_CPU_VARIABLES: Final = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
)
_CUDA_VARIABLES: Final = ("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
_REDUCTIONS: Final = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)
_KERNELS: Final = ("flash", "mem_efficient", "math", "cudnn")  # of attention


def machine(device: torch.device) -> dict[str, Any]:
    """The processor and the switches that decide the last bits of a product of matrices, ready for JSON."""
    backends = torch.backends
    kernels = {name: _read(partial(getattr(backends.cuda, f"{name}_sdp_enabled", _absent))) for name in _KERNELS}
    if device.type == "cuda":
        matmul = backends.cuda.matmul
        return {
            "device": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": backends.cudnn.version(),
            "fp32": _precision(matmul, lambda: "tf32" if matmul.allow_tf32 else "ieee"),
            "reductions": {name: _read(partial(getattr, matmul, name)) for name in _REDUCTIONS},
            "attention": kernels,
            "switches": _set(_CUDA_VARIABLES),
        }
    return {
        "device": device.type,
        "processor": processor(),
        "instruction_set": backends.cpu.get_cpu_capability(),
        "fp32": _precision(getattr(backends.mkldnn, "matmul", None), torch.get_float32_matmul_precision),
        "reductions": _read(partial(getattr(torch._C, "_get_cpu_allow_fp16_reduced_precision_reduction", _absent))),
        "mkldnn": backends.mkldnn.is_available() and backends.mkldnn.enabled,
        "fp32_by_onednn": onednn() is not None,
        "attention": kernels,
        "switches": _set(_CPU_VARIABLES),
    }


def _precision(products: Any, usual: Callable[[], object]) -> str | None:
    """In what fp32 numbers are multiplied: by PyTorch's newer name, which cannot be mixed with the older one."""
    newer = getattr(products, "fp32_precision", None)
    if newer is None:
        return _read(usual)
    return "ieee" if newer == "none" else str(newer)


def _set(names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name in names if (value := os.environ.get(name))}


def _read(switch: Callable[[], object]) -> str | None:
    """What a switch says, which not every version of PyTorch has."""
    try:
        found = switch()
    except (AttributeError, RuntimeError):
        return None
    return None if found is None else str(found)


def _absent() -> None:
    """Stands for a switch that this PyTorch does not have."""
