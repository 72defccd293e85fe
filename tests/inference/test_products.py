"""Products by oneDNN are those of PyTorch, gradients too, and used where the rule says so and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers.pytorch_utils import Conv1D

from lora_clf.inference import products
from lora_clf.inference.attention import kernel_rule
from lora_clf.inference.cache import facts_of
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.padding import packed_rows
from lora_clf.inference.predict import MANY, answering
from lora_clf.inference.prefix import CANONICAL_TOKENS, Cut, compute_states
from lora_clf.inference.runner import Runner
from lora_clf.tuners import create
from tests.bases import BLOCKS, batch, randomise, tiny_base


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
        assert all(gradient is not None and gradient.is_contiguous() for gradient in gradients)
        answers.append([y.detach(), x.grad, *gradients])
        layer.zero_grad()
    assert by_onednn == [(6, 7, 5), (6, 5, 7), (7, 6, 5) if kind == "conv1d" else (5, 6, 7)]
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
    products._quicker.cache_clear()
    try:
        found = products.onednn() is not None
        assert found == (used and products._onednn() is not None)
        assert ("oneDNN" in kernel_rule(torch.device("cpu"))) == found
        layer = nn.Linear(3, 2)
        assert products.quicken(nn.ModuleList([layer])) == int(found)
        assert ("forward" in vars(layer)) == found
        monkeypatch.setattr(products, "_switched_on", lambda: False)
        assert products.onednn() is None
    finally:
        products._quicker.cache_clear()


class Nameless:
    """What PyTorch's namespace would be without the operator."""


class Otherwise:
    """Another signature."""

    @staticmethod
    def default(x: Tensor) -> Tensor:
        return x


class Wrong:
    """Another meaning."""

    @staticmethod
    def default(x: Tensor, weight: Tensor, bias: Tensor | None, *more: object) -> Tensor:
        return x @ weight.t()


@pytest.mark.parametrize("operator", [Nameless, Otherwise, Wrong])
def test_a_pytorch_without_the_operator_multiplies_as_ever(operator: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator, raising=False)
    assert products._onednn() is None


def test_the_operator_is_tried_whatever_the_defaults_of_the_caller_are() -> None:
    usual = products._onednn()
    with torch.device("meta"):
        assert (products._onednn() is None) == (usual is None)
    torch.set_default_dtype(torch.float64)
    try:
        assert (products._onednn() is None) == (usual is None)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_input_is_kept_where_a_gradient_needs_it_alone(by_onednn: list[tuple[int, ...]]) -> None:
    for trains in (False, True):
        layer = nn.Linear(7, 5).requires_grad_(trains)
        products.quicken(nn.ModuleList([layer]))
        x = drawn(4, 7).requires_grad_() * 2
        kept = StorageWeakRef(x.untyped_storage())
        y = layer(x)
        del x
        assert kept.expired() is not trains
        y.sum().backward()
    assert len(by_onednn) == 5


def test_what_was_made_ready_for_a_run_is_not_copied(by_onednn: list[tuple[int, ...]]) -> None:
    layers = nn.ModuleList([nn.Linear(7, 5)])
    assert products.quicken(layers) == 1 and products.quicken(layers) == 0
    with pytest.raises(TypeError, match="belongs to it and cannot be copied"):
        copy.deepcopy(layers)
    tuned = create("full").prepare(tiny_base("bert").view(2))
    assert fuse_blocks(tuned, "fp32") > 0
    with pytest.raises(TypeError, match="belongs to it and cannot be copied"):
        copy.deepcopy(tuned.view)


@pytest.mark.parametrize("strategy", ["lora", "lora-scratch", "bottleneck", "ia3", "dora", "prefix-tuning"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_layers_of_strategies_multiply_the_quicker_way_too(
    name: str, strategy: str, by_onednn: list[tuple[int, ...]]
) -> None:
    """Logits and gradients are the same, and no product of the base's own weights goes another way."""
    answers = []
    linears = {"gpt2": 4, "llama": 7}[name] * BLOCKS
    for quick in (False, True):
        tuned = create(strategy).prepare(tiny_base(name).view(2))
        randomise(tuned)
        if quick:
            assert products.quicken(tuned.view.blocks) >= linears
        logits = tuned.view.classify(*batch())
        assert len(by_onednn) >= linears * quick
        (logits * drawn(*logits.shape)).sum().backward()
        gradients = [p.grad for p in tuned.trainable().values()]
        assert len(gradients) > 2 and all(gradient is not None for gradient in gradients)
        answers.append([logits.detach(), *gradients])
    assert len(by_onednn) > 3 * linears / 2
    for usual, mine in zip(*answers, strict=True):
        assert usual is not None and mine is not None
        torch.testing.assert_close(mine, usual, rtol=1e-4, atol=1e-5 * float(usual.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
def test_runs_prefixes_and_bulk_answers_go_the_quicker_way(name: str, by_onednn: list[tuple[int, ...]]) -> None:
    """And blocks that are one node leave padding out on it."""
    base = tiny_base(name)
    texts = [f"{chr(98 + i)} {text}" for i in range(8) for text in ("a", "bc de fg", "h" * 100, "ij kl " * 8)]
    tokens = base.encode(texts)
    lengths = tokens.lengths
    fused = name != "gpt2"
    tuned = create("lora-scratch").prepare(base.view(2))
    runner = Runner(base, tuned, "fp32", {"train": tokens}, cache=False)
    runner.logits("train", np.arange(len(texts)), training=True).sum().backward()
    rows = packed_rows(int(lengths.sum()), len(texts) * int(lengths.max() + 7) // 8 * 8)
    positions = {shape[0] for shape in by_onednn}
    assert len(by_onednn) > 8 and (rows in positions) == fused and rows < len(texts) * lengths.max()
    by_onednn.clear()
    compute_states(base, "mean", Cut(1, False), "fp32", tokens, np.arange(len(texts)), lambda *state: None)
    assert len(by_onednn) > 2 and {shape[0] for shape in by_onednn if shape[1:2] == (32,)} == {CANONICAL_TOKENS}
    by_onednn.clear()
    many = answering(tuned, "fp32", MANY)
    with torch.no_grad():
        many.view.classify(*batch())
    assert len(by_onednn) > 8


def test_states_are_kept_apart_by_the_library_that_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for product in (None, drawn):
        monkeypatch.setattr("lora_clf.inference.switches.onednn", lambda product=product: product)
        found.append(facts_of(tiny_base("bert"), "mean", Cut(1, False), "fp32")["machine"])
    assert found[0] != found[1]
    assert {**found[0], "fp32_by_onednn": True} == found[1]


@pytest.mark.skipif(products._packing() is None, reason="this processor or PyTorch has no packed weights")
def test_a_packed_weight_multiplies_any_number_of_rows() -> None:
    weight, bias = drawn(96, 64).bfloat16(), drawn(96, seed=1).bfloat16()
    product = products.packed(weight)
    assert product is not None and products.packed(weight.float()) is None
    for rows in (1, 5, 128, 1500):
        x = drawn(rows, 64, seed=2).bfloat16()
        torch.testing.assert_close(product(x, bias), nn.functional.linear(x, weight, bias))
        torch.testing.assert_close(product(x, None), x @ weight.t())
    before = product(x, bias)
    weight.zero_()  # it is a copy
    assert torch.equal(product(x, bias), before)


@pytest.mark.parametrize("name", ["_linear_pointwise", "_reorder_linear_weight"])
@pytest.mark.parametrize("operator", [Nameless, Otherwise, Wrong])
def test_where_an_operator_is_another_nothing_is_packed(
    name: str, operator: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, name, operator, raising=False)
    products._packing.cache_clear()
    try:
        assert products.packed(torch.ones(2, 2, dtype=torch.bfloat16)) is None
    finally:
        products._packing.cache_clear()


@pytest.mark.skipif(products._packing() is None, reason="this processor or PyTorch has no packed weights")
def test_onednn_may_be_switched_off_when_weights_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for switched_off in (False, True):
        tuned = create("lora-scratch", rank=2).prepare(tiny_base("bert", 0).view(2, "mean"))
        assert fuse_blocks(tuned, "bf16", None, 64) == BLOCKS
        monkeypatch.setattr(products, "_switched_on", lambda off=switched_off: not off)
        tuned.view(*batch()).square().sum().backward()
        monkeypatch.undo()
        found.append([p.grad for p in tuned.trainable().values()])
    assert len(found[0]) > 10
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(other, one, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("part", [slice(0, 8), slice(8, 16)])
def test_a_part_of_a_joined_layer_is_not_given_to_onednn(by_onednn: list[tuple[int, ...]], part: slice) -> None:
    """Of columns with gaps between them it makes a slow copy first, every time."""
    joined = drawn(8, 24).requires_grad_()
    x = drawn(3, 8, seed=1).requires_grad_()
    found = products.affine(x, joined[:, part], None, transposed=True)
    found.square().sum().backward()
    ours = [found.detach(), x.grad, joined.grad]
    x.grad = joined.grad = None
    usual = x @ joined[:, part]
    usual.square().sum().backward()
    for mine, other in zip(ours, (usual.detach(), x.grad, joined.grad), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    assert by_onednn == [(8, 3, 8)]  # the gradient of the weight alone
