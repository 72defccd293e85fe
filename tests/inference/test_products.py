"""Products by oneDNN are those of PyTorch, gradients too, and used where the rule says so and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_clf.inference import products
from lora_clf.inference.attention import kernel_rule


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The quicker way on, whatever processor this is; the shapes that go through it."""
    usual = products._onednn()
    if usual is None:
        pytest.skip("this PyTorch has no oneDNN product under the known name")
    found: list[tuple[int, ...]] = []

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found.append((*x.shape, len(weight)))
        return usual(x, weight, bias)

    monkeypatch.setattr(products, "onednn", lambda: counted)
    yield found


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["linear", "bare", "conv1d"])
def test_a_quick_layer_is_the_layer(kind: str, by_onednn: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    layer = Conv1D(5, 7) if kind == "conv1d" else nn.Linear(7, 5, bias=kind == "linear")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    answers = []
    for quick in (False, True):
        if quick:
            assert products.quicken(nn.ModuleList([layer, nn.LayerNorm(5)])) == 1
        x = drawn(2, 3, 7).requires_grad_()
        y = layer(x)
        (y * drawn(2, 3, 5, seed=1)).sum().backward()
        assert x.grad is not None
        gradients = [p.grad for p in layer.parameters()]
        answers.append([y.detach(), x.grad, *gradients])
        layer.zero_grad()
    assert by_onednn == [(6, 7, 5), (6, 5, 7), (5, 6, 7)]
    assert len(answers[0]) == (3 if kind == "bare" else 4)
    for usual, mine in zip(*answers, strict=True):
        torch.testing.assert_close(mine, usual, rtol=1e-5, atol=1e-6)


def test_frozen_layers_take_no_gradient_of_theirs(by_onednn: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(7, 5).requires_grad_(False)
    products.quicken(nn.ModuleList([layer]))
    layer(drawn(4, 7).requires_grad_()).sum().backward()
    assert by_onednn == [(4, 7, 5), (4, 5, 7)]
    with torch.no_grad():
        layer(drawn(4, 7))
    assert len(by_onednn) == 3 and layer.weight.grad is None


def test_other_numbers_and_autocast_go_the_usual_way(by_onednn: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(7, 5)
    products.quicken(nn.ModuleList([layer]))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(drawn(4, 7)).dtype == torch.bfloat16
    assert layer(drawn(0, 3, 7)).shape == (0, 3, 5)
    assert layer.double()(drawn(4, 7).double()).dtype == torch.float64
    weight, bias = drawn(5, 7).bfloat16(), drawn(5).bfloat16()
    assert products.linear(drawn(4, 7).bfloat16(), weight, bias).dtype == torch.bfloat16
    assert products.times(drawn(4, 5).bfloat16(), weight).dtype == torch.bfloat16
    assert by_onednn == []


@pytest.mark.parametrize(
    ("capability", "model", "used"),
    [("AVX512", "AMD EPYC", True), ("AVX512", "Intel(R) Xeon(R)", False), ("AVX2", "AMD Ryzen", False)],
)
def test_the_rule_goes_by_the_processor(
    capability: str, model: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "processor", lambda: model)
    products.onednn.cache_clear()
    try:
        found = products.onednn() is not None
        assert found == (used and products._onednn() is not None)
        assert ("oneDNN" in kernel_rule(torch.device("cpu"))) == found
        layer = nn.Linear(3, 2)
        assert products.quicken(nn.ModuleList([layer])) == int(found)
        assert ("forward" in vars(layer)) == found
    finally:
        products.onednn.cache_clear()


def test_a_pytorch_without_the_operator_multiplies_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """Another signature."""

        @staticmethod
        def default(x: Tensor) -> Tensor:
            return x

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", Other, raising=False)
    assert products._onednn() is None
