"""Query, key and value apart and in one: the same change, exactly, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_clf.adapters.apart import write_apart
from lora_clf.adapters.factors import Factors, concatenated, factors_of, low_rank, nearest, targets_for, uniform
from lora_clf.adapters.file import CONFIG, MODEL
from lora_clf.adapters.foreign import load_foreign
from lora_clf.adapters.fused import TRIPLES, fuse, fuse_layers, rows_of, split, split_layers
from lora_clf.adapters.peft_folder import is_foreign
from lora_clf.base.targets import linear_shape
from lora_clf.errors import (
    AdapterExistsError,
    AdapterFormatError,
    StateError,
    TargetError,
    TunerError,
    UsageError,
    WrongBaseError,
)
from tests.adapters.making import make, shared_base
from tests.adapters.peft_making import LABELS, agree, peft_logits, saved_by_peft

FUSED = ("gpt2", "gpt_neox", "modernbert")
TEXTS = ("Are you there?", "WIN a prize " * 3, "ok")


def random_factors(rank: int, inputs: int = 32, outputs: int = 32, scaling: float = 2.5, seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, inputs, generator=generator, dtype=torch.float64)
    return Factors(a, torch.randn(outputs, rank, generator=generator, dtype=torch.float64), scaling)


def same(one: Factors, other: Factors) -> bool:
    return torch.equal(one.a, other.a) and torch.equal(one.b, other.b) and one.scaling == other.scaling


@pytest.mark.parametrize("name", FUSED)
def test_three_and_back_are_exact(name: str) -> None:
    base = shared_base(name)
    layer = next(n for n, _ in base.backbone.named_modules() if n.endswith(base.architecture.attention[0]))
    rows = rows_of(base, layer)
    assert sorted(torch.cat(rows).tolist()) == list(range(3 * 32))
    three = [random_factors(4, seed=seed) for seed in range(3)]
    fused = fuse(three, rows)
    assert fused.a.shape == (12, 32) and fused.b.shape == (96, 12)
    assert fused.scaling == 2.5  # alpha x 3 over rank x 3
    for part, places in zip(three, rows, strict=True):
        assert torch.equal(fused.change()[places], part.change())
    back = split(fused, rows)
    assert all(other is not None and same(part, other) for part, other in zip(three, back, strict=True))


def test_the_fused_rows_are_those_the_architecture_reads() -> None:
    """A change of the query alone must change the query alone: seen in GPT-NeoX's own attention."""
    base = shared_base("gpt_neox")
    attention = base.backbone.get_submodule("layers.0.attention")
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    heads, width = base.config.num_attention_heads, 8
    q, k, v = attention.query_key_value(x).view(1, 5, heads, 3 * width).chunk(3, dim=-1)  # as its forward does
    whole = attention.query_key_value(x)
    for part, places in zip((q, k, v), rows_of(base, "layers.0.attention.query_key_value"), strict=True):
        assert torch.equal(whole[..., places], part.reshape(1, 5, -1))


def test_ranks_and_scalings_may_differ_and_one_may_be_absent() -> None:
    base = shared_base("gpt2")
    rows = rows_of(base, "h.0.attn.c_attn")
    q, v = random_factors(2, scaling=0.5), random_factors(5, scaling=3.0, seed=1)
    fused = fuse([q, None, v], rows)
    assert fused.rank == 7 and not fused.change()[rows[1]].any()
    assert torch.equal(fused.change()[rows[0]], q.change())
    torch.testing.assert_close(fused.change()[rows[2]], v.change(), rtol=1e-13, atol=1e-13)
    back = split(fused, rows)
    assert back[1] is None and back[0] is not None and same(back[0], q)


def test_a_dense_b_splits_too() -> None:
    """One trained on the fused layer shares its A: each of the three gets it, and the changes stay."""
    base = shared_base("gpt2")
    rows = rows_of(base, "h.0.attn.c_attn")
    fused = random_factors(4, outputs=96)
    for part, places in zip(split(fused, rows), rows, strict=True):
        assert part is not None and part.rank == 4 and torch.equal(part.change(), fused.change()[places])


@pytest.mark.parametrize("query", [triple[0] for triple in TRIPLES])
def test_whole_adapters_there_and_back(query: str) -> None:
    adapter = make("gpt2", "lora", "family")
    factors = low_rank(adapter.tuned)
    apart = split_layers(adapter.base, factors, query)
    assert len(factors) == 12 and len(apart) == 3 * 5 + 3
    names = next(triple for triple in TRIPLES if triple[0] == query)
    assert {f"h.1.attn.{name}" for name in names} <= apart.keys() and "h.1.attn.c_attn" not in apart
    together = fuse_layers(adapter.base, apart)
    assert together.keys() == factors.keys()
    for layer, part in factors.items():
        torch.testing.assert_close(together[layer].change(), part.change(), rtol=0, atol=0)


def test_a_file_with_three_comes_onto_a_fused_base(tmp_path: Path) -> None:
    """What a program with separate projections saved, on GPT-2: the logits of the same change in c_attn."""
    model, base = saved_by_peft("gpt2", tmp_path)
    plain = load_foreign(tmp_path / "adapter", base, labels=LABELS)
    prefix, apart = "base_model.model.transformer.", {}
    state = load_file(tmp_path / "adapter" / MODEL)
    layers = [name for name in state if name.endswith("c_attn.lora_A.weight")]
    assert len(layers) == 3
    for name in layers:
        layer = name.removesuffix(".lora_A.weight").removeprefix(prefix)
        fused = Factors(state.pop(name), state.pop(name.replace("_A", "_B")), 1.0)
        for leaf, part in zip(TRIPLES[0], split(fused, rows_of(base, layer)), strict=True):
            assert part is not None
            own = f"{prefix}{layer.removesuffix('c_attn')}{leaf}"
            apart |= {f"{own}.lora_A.weight": part.a.clone(), f"{own}.lora_B.weight": part.b.clone()}
    save_file({**state, **apart}, tmp_path / "adapter" / MODEL)
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    targets = [*(name for name in config["target_modules"] if "c_attn" not in name), *TRIPLES[0]]
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps({**config, "target_modules": targets}))
    with pytest.raises(WrongBaseError, match=r"adapts query, key and value apart.*--fuse-qkv"):
        load_foreign(tmp_path / "adapter", base, labels=LABELS)
    fused_adapter = load_foreign(tmp_path / "adapter", base, labels=LABELS, fuse_qkv=True)
    assert fused_adapter.header.settings["rank"] == 12 and fused_adapter.header.settings["alpha"] == 30.0
    agree(fused_adapter.logits(TEXTS), plain.logits(TEXTS))
    agree(plain.logits(TEXTS), peft_logits(model, plain.encode(TEXTS).ids))


@pytest.mark.parametrize("name", FUSED)
def test_a_folder_with_three_and_back(name: str, tmp_path: Path) -> None:
    """Ours to PEFT's folder with the three apart, and from there onto the fused base again."""
    adapter = make(name, "lora", "family", LABELS)
    write_apart(adapter, tmp_path / "apart", query="query")
    tensors = load_file(tmp_path / "apart" / MODEL)
    config = json.loads((tmp_path / "apart" / CONFIG).read_text())
    leaf = adapter.base.architecture.attention[0].rpartition(".")[2]
    assert not any(leaf in key for key in tensors) and sum(".key.lora_A" in key for key in tensors) == 3
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (3, 7, "SEQ_CLS")
    assert {f"base_model.model.{target}.lora_A.weight" for target in config["target_modules"]} <= tensors.keys()
    assert is_foreign(tmp_path / "apart")
    back = load_foreign(tmp_path / "apart", adapter.base, labels=LABELS, fuse_qkv=True)
    assert back.header.settings["rank"] == 9
    agree(back.logits(TEXTS), adapter.logits(TEXTS))
    # From the fused form of rank 9 the three come back as they were, of rank 3.
    write_apart(back, tmp_path / "again", query="query")
    again = load_file(tmp_path / "again" / MODEL)
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in tensors)
    with pytest.raises(AdapterExistsError):
        write_apart(adapter, tmp_path / "apart")
    write_apart(adapter, tmp_path / "apart", force=True)


def test_three_must_fit_and_be_whole(tmp_path: Path) -> None:
    """Like layers that need no fusing: of the base's width, all that the config names, and no others."""
    base = shared_base("gpt2")
    write_apart(make("gpt2", "lora", "family", LABELS), tmp_path / "apart", query="q_proj")
    whole = load_file(tmp_path / "apart" / MODEL)
    config = json.loads((tmp_path / "apart" / CONFIG).read_text())

    def refused(error: type[Exception], message: str, state: dict[str, Tensor], **changes: object) -> None:
        save_file(state, tmp_path / "apart" / MODEL)
        (tmp_path / "apart" / CONFIG).write_text(json.dumps({**config, **changes}))
        with pytest.raises(error, match=message):
            load_foreign(tmp_path / "apart", base, labels=LABELS, fuse_qkv=True)

    def double(side: str, dim: int) -> dict[str, Tensor]:
        return {n: torch.cat([t, t], dim=dim) if f"k_proj.{side}" in n else t for n, t in whole.items()}

    refused(WrongBaseError, r"h\.0\.attn\.k_proj goes from 64 to 32, here from 32 to 32", double("lora_A", 1))
    refused(WrongBaseError, r"h\.0\.attn\.k_proj goes from 32 to 64, here from 32 to 32", double("lora_B", 0))
    lost = {name: tensor for name, tensor in whole.items() if ".1.attn.v_proj" not in name}
    assert len(whole) - len(lost) == 2
    refused(AdapterFormatError, r"no factors for 1 of them \(h\.1\.attn\.v_proj\)", lost)
    endings = ["q_proj", "k_proj", "v_proj", "c_proj", "c_fc"]
    refused(AdapterFormatError, r"no factors for 1 of them \(h\.1\.attn\.v_proj\)", lost, target_modules=endings)
    refused(AdapterFormatError, "does not select", whole, target_modules=["q_proj", "c_proj", "c_fc"])
    deep = {name.replace(".h.2.", ".h.7."): tensor for name, tensor in whole.items()}
    refused(WrongBaseError, r"no linear layer h\.7\.attn", deep)


def test_what_cannot_be_fused_or_split() -> None:
    bert, gpt2 = shared_base("bert"), shared_base("gpt2")
    with pytest.raises(TargetError, match="nothing to fuse or to split"):
        fuse_layers(bert, {})
    with pytest.raises(TargetError, match="No layer has query, key and value apart"):
        fuse_layers(gpt2, {"h.0.attn.c_attn": random_factors(2)})
    with pytest.raises(TargetError, match=r"does not adapt attn\.c_attn"):
        split_layers(gpt2, {"h.0.mlp.c_fc": random_factors(2)})
    with pytest.raises(UsageError, match="name of the query 'Q'"):
        split_layers(gpt2, {}, "Q")


# Factors


def test_a_sum_of_changes_is_exact() -> None:
    one, other = random_factors(2, scaling=0.5), random_factors(3, scaling=4.0, seed=1)
    both = concatenated([(0.25, one), (0.75, other)])
    assert both.rank == 5
    expected = 0.25 * one.change() + 0.75 * other.change()
    torch.testing.assert_close(both.change(), expected, rtol=1e-13, atol=1e-13)


def test_the_nearest_is_the_nearest() -> None:
    change = random_factors(3, inputs=20, outputs=30).change()
    exact, kept = nearest(change, 3)
    torch.testing.assert_close(exact.change(), change, rtol=1e-12, atol=1e-12)
    assert kept == pytest.approx(float((change**2).sum()))
    thin, kept = nearest(change, 2)
    rest = float(((thin.change() - change) ** 2).sum())
    assert thin.rank == 2 and rest == pytest.approx(float((change**2).sum()) - kept) and rest > 0
    wide, _ = nearest(change, 500)
    assert wide.rank == 20


def test_one_rank_and_one_scaling_for_all() -> None:
    mixed = {"x": random_factors(2, scaling=7 / 3), "y": random_factors(4, scaling=7 / 3), "z": random_factors(3)}
    rank, alpha, state = uniform(mixed)
    assert (rank, alpha) == (4, 28 / 3)
    back = factors_of(state, alpha / rank)
    for layer, part in mixed.items():
        torch.testing.assert_close(back[layer].change(), part.change(), rtol=1e-5, atol=1e-5)
    assert torch.equal(state["y.lora_B.weight"], mixed["y"].b.float())
    assert uniform({"x": random_factors(3, scaling=7 / 3)})[1] == 7.0


def test_factors_must_be_pairs() -> None:
    def pair(**state: Tensor) -> None:
        factors_of({name.replace("_", ".lora_") + ".weight": tensor for name, tensor in state.items()}, 1.0)

    with pytest.raises(StateError, match=r"missing: x\.lora_B\.weight"):
        pair(x_A=torch.ones(2, 3))
    with pytest.raises(StateError, match=r"x: lora_A is \(2, 3\) and lora_B \(3, 4\)"):
        pair(x_A=torch.ones(2, 3), x_B=torch.ones(3, 4))
    with pytest.raises(TunerError, match="A full adapter is no plain LoRA"):
        low_rank(make("bert", "full").tuned)


def test_settings_name_exactly_the_layers() -> None:
    from lora_clf.base.targets import expand_targets

    base = shared_base("bert")
    every = expand_targets(base.backbone, base.architecture, "all").modules
    cases = {
        ("all", None): every,
        ("all", 2): [name for name in every if ".0." not in name],
        ("attention", 1): [name for name in every if ".2.attention.self." in name],
        ("attention+output", None): [name for name in every if ".attention." in name],
        ("attention.self.value", None): [name for name in every if name.endswith("value")],
    }
    for settings, layers in cases.items():
        assert targets_for(base, layers) == settings
    # "output.dense" is also the end of "attention.output.dense", so the names must be whole.
    odd = [name for name in every if name.endswith("output.dense") and ".attention." not in name]
    targets, blocks = targets_for(base, odd)
    assert blocks is None and targets.split(",") == odd
    assert set(expand_targets(base.backbone, base.architecture, targets).modules) == set(odd)
    for layers, message in ((["pooler.dense"], r"no linear layers of the blocks.*pooler\.dense"), ([], "No layer")):
        with pytest.raises(TargetError, match=message):
            targets_for(base, layers)
    assert linear_shape(base.backbone.get_submodule(every[0])) == (32, 32)
