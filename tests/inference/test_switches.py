"""Every switch that decides the last bits of a product is part of what kept states are held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lora_clf.inference.switches import machine

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    yield
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)
    MATMUL.allow_fp16_reduced_precision_reduction = True


def _variable(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setenv(name, "1")


CHANGES: tuple[tuple[torch.device, Callable[[pytest.MonkeyPatch], Any]], ...] = (
    (CPU, lambda patch: torch.backends.cuda.enable_flash_sdp(False)),
    (CPU, lambda patch: torch.backends.cuda.enable_math_sdp(False)),
    (CPU, _variable("ONEDNN_DEFAULT_FPMATH_MODE")),
    (CPU, _variable("DNNL_DEFAULT_FPMATH_MODE")),
    (CPU, _variable("MKL_CBWR")),
    (GPU, lambda patch: torch.backends.cuda.enable_mem_efficient_sdp(False)),
    (GPU, lambda patch: setattr(MATMUL, "allow_fp16_reduced_precision_reduction", False)),
    (GPU, _variable("NVIDIA_TF32_OVERRIDE")),
    (GPU, _variable("CUBLAS_WORKSPACE_CONFIG")),
)


@pytest.mark.parametrize(("device", "change"), CHANGES)
def test_each_switch_shows(
    device: torch.device, change: Callable[[pytest.MonkeyPatch], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = machine(device)
    assert json.loads(json.dumps(before)) == before == machine(device)
    change(monkeypatch)
    assert machine(device) != before


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="this PyTorch has the older switch alone")
def test_the_newer_switch_of_fp32_products_can_be_read(device: torch.device) -> None:
    """PyTorch refuses to say what the older one is once the newer one was set."""
    products = MATMUL if device == GPU else torch.backends.mkldnn.matmul
    before, usual = machine(device), products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        assert machine(device) == {**before, "fp32": "tf32"} != before
        products.fp32_precision = "ieee"
        assert machine(device) == before
    finally:
        products.fp32_precision = usual


def test_the_older_switch_of_fp32_products_shows() -> None:
    before = torch.get_float32_matmul_precision()
    assert machine(CPU)["fp32"] == "ieee"
    torch.set_float32_matmul_precision("medium")
    try:
        assert machine(CPU)["fp32"] != "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
