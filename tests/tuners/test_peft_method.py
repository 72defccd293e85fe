"""The door to whatever peft has: every method it registers works here, or is refused with a reason."""

from __future__ import annotations

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lora_clf.base.digest import backbone_digest
from lora_clf.errors import NotMergeableError, UnsupportedBaseError, UsageError
from lora_clf.tuners import create
from lora_clf.tuners.peft_method import ELSEWHERE, MERGED, UNFIT, methods
from tests.bases import batch, randomise, tiny_base

# What peft's defaults ask too much of 32 inputs.
SETTINGS = {
    "C3A": "block_size=8",
    "MISS": "r=8",
    "ROAD": "group_size=8",
    "SHIRA": "r=2",
    "VBLORA": "vector_length=8,num_vectors=16",
    "WAVEFT": "n_frequency=64",
}
METHODS = methods()


def test_every_method_of_peft_is_one_of_three() -> None:
    known = {str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert known <= {*METHODS, *ELSEWHERE, *UNFIT}
    assert len(METHODS) >= 27 and len(MERGED - set(METHODS)) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_travels_and_merges_or_says_why_not(method: str) -> None:
    base = tiny_base("bert")
    before = backbone_digest(base.backbone.named_parameters(), base.config.to_dict())
    tuner = create("peft", peft_type=method.lower(), set=SETTINGS.get(method, ""))
    first, second = (tuner.prepare(base.view(3, seed=3)) for _ in range(2))
    drawn = first.state_dict()
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in second.state_dict().items())
    randomise(first)
    first.view(*batch()).square().sum().backward()
    assert all(p.grad is not None for p in first.trainable().values())
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        ours = first.view(*batch())
        assert torch.equal(ours, second.view(*batch()))
        assert not torch.equal(ours, base.view(3, seed=3)(*batch()))
        ids, mask = batch()
        one_by_one = [first.view(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(1).tolist())]
        assert (torch.cat(one_by_one) - ours).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))
        assert ours.std() > 0.05
    if method in MERGED:
        merged = first.merge()
        with torch.no_grad():
            assert (merged(*batch()) - ours).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))
    else:
        with pytest.raises(NotMergeableError, match="peft"):
            first.merge()
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHAA"}, "Did you mean 'LOHA'"),
        ({"peft_type": "adalora"}, "this is --strategy adalora"),
        ({"peft_type": "POLY"}, "cannot be used for classification here: it takes the number of a task"),
        ({"peft_type": "LILY"}, "depends on the other texts of the batch"),
        ({"set": "r"}, "'r' is not key=value"),
        ({"set": "target_modules=query"}, "--targets and --blocks say which layers"),
        ({"set": "exclude_modules=(.*)*x"}, "--targets and --blocks say which layers"),
        (
            {"set": 'rank_pattern={"query": 1000000000},r=4'},
            r'--set rank_pattern={"query": 1000000000}: expected a number',
        ),
        ({"set": 'alpha=4, alpha_pattern={"(.*)*x":1,"y":2}'}, r"--set alpha_pattern=.*cannot be set here"),
        (
            {"peft_type": "LORA", "set": "target_parameters=[]"},
            r"--set target_parameters=\[\]: expected a number, a word",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create("peft", **settings)


def test_settings_reach_peft_and_what_it_does_not_take_is_said() -> None:
    base = tiny_base("bert")
    small = create("peft", peft_type="LOKR", set="r=2, alpha=6,decompose_both=true").prepare(base.view(2))
    assert small.trainable_parameters < create("peft", peft_type="LOKR").prepare(base.view(2)).trainable_parameters
    layer = small.view.backbone.get_submodule("encoder.layer.0.attention.self.query")
    assert layer.alpha == {"default": 6} and layer.r == {"default": 2}
    with pytest.raises(UsageError, match=r"peft's LOKR does not take these settings.*rank"):
        create("peft", peft_type="LOKR", set="rank=2").prepare(base.view(2))
    with pytest.raises(UnsupportedBaseError, match=r"peft's MISS says: .*r.*64"):
        create("peft", peft_type="MISS").prepare(base.view(2))


@pytest.mark.parametrize(
    ("method", "settings", "key"),
    [
        ("OSF", "bias=all", "bias"),
        ("HRA", "bias=all", "bias"),
        ("LOHA", "bias=lora_only", "bias"),
        ("LOHA", "init_lora_weights=olora", "init_lora_weights"),
        ("LOHA", "init_lora_weights=pissa", "init_lora_weights"),
    ],
)
def test_what_would_change_the_base_is_refused(method: str, settings: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"--set {key}=.*it changes weights of the base itself"):
        create("peft", peft_type=method, set=settings)
    create("peft", peft_type="HRA", set="bias=none")


def test_what_peft_lets_train_never_lies_in_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("bert")
    before = backbone_digest(base.backbone.named_parameters(), base.config.to_dict())
    monkeypatch.setattr("lora_clf.tuners.peft_method.SAFE", {})  # as if a method had one that nobody knows
    tuned = create("peft", peft_type="HRA", set="bias=all").prepare(base.view(2))
    assert any(name.endswith("bias") and "head" not in name for name in tuned.trainable())
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(1.0)
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == before
