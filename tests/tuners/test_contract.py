"""What every strategy promises, on every architecture: declarations checked both ways, counts asserted."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
import torch

from lora_clf.base.base import Base
from lora_clf.base.digest import backbone_digest
from lora_clf.errors import (
    NotMergeableError,
    StateError,
    TargetError,
    UnsupportedBaseError,
    UsageError,
)
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned
from tests.bases import ARCHITECTURE_NAMES, FAMILY_NAMES, WIDTH, batch, randomise, tiny_base

STRATEGIES = tuple(strategies())
CLASSES = 3
CASES = [(strategy, name) for name in ARCHITECTURE_NAMES for strategy in STRATEGIES]
# What a strategy cannot adapt: its refusal says so, and nothing else of the suite runs there.
REFUSED = {
    "bitfit": {"llama", "qwen3", "modernbert", "t5"},  # no biases
    "oft": {"gpt2"},  # Conv1D
    "boft": {"gpt2"},  # Conv1D
    "prefix-tuning": {"longformer", "big_bird"},  # attention of their own
    "peft": {"gpt2"},  # LoHa, the default: Conv1D
}
HEADS = [(name, pooling) for name in ARCHITECTURE_NAMES for pooling in ("mean", "first", "last", "family")
         if pooling != "family" or name in FAMILY_NAMES]  # fmt: skip


@pytest.fixture(scope="module", params=ARCHITECTURE_NAMES)
def base(request: pytest.FixtureRequest) -> Iterator[Base]:
    """One tiny base of each architecture."""
    yield tiny_base(request.param)


def refused(strategy: str, base: Base) -> bool:
    """Whether this strategy cannot adapt this base."""
    return base.architecture.model_type in REFUSED.get(strategy, ())


def test_refusals_are_as_declared_and_have_a_reason(base: Base) -> None:
    for strategy in STRATEGIES:
        reason = create(strategy).refusal(base.view(CLASSES))
        assert (reason is not None) == refused(strategy, base), (strategy, reason)
        if reason is not None:
            with pytest.raises(
                UnsupportedBaseError, match=f"{strategy} cannot adapt this .* base: {re.escape(reason)}"
            ):
                create(strategy).prepare(base.view(CLASSES))


def test_the_suite_covers_what_it_says() -> None:
    assert STRATEGIES[:5] == ("head-only", "last-block", "full", "lora", "lora-scratch")
    assert len(ARCHITECTURE_NAMES) == 13
    assert len(FAMILY_NAMES) == 11
    assert len(CASES) == 13 * len(STRATEGIES)
    assert len(HEADS) == 13 * 3 + 11


@pytest.fixture(scope="module")
def kept(base: Base) -> dict[str, Tuned]:
    """Every strategy on this base with weights that moved, as far as tests asked for it."""
    return {}


@pytest.fixture
def moved(base: Base, kept: dict[str, Tuned], strategy: str) -> Iterator[Tuned]:
    """One that tests share; each leaves its weights and its mode as they were."""
    if strategy not in kept:
        kept[strategy] = create(strategy).prepare(base.view(CLASSES, seed=3))
        randomise(kept[strategy])
    tuned = kept.pop(strategy)  # and back only from a test that passed its checks here
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    yield tuned
    tuned.view.eval().zero_grad()
    after = tuned.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    kept[strategy] = tuned


@pytest.mark.parametrize("strategy", STRATEGIES)
class TestEveryArchitecture:
    """Run for each of the eleven architectures through the ``base`` fixture."""

    @pytest.fixture(autouse=True)
    def possible(self, base: Base, strategy: str) -> None:
        """Refusals have a test of their own."""
        if refused(strategy, base):
            pytest.skip("refused, as it should be")

    def test_identity_at_init(self, base: Base, strategy: str) -> None:
        plain = base.view(CLASSES, seed=3)
        tuned = create(strategy).prepare(base.view(CLASSES, seed=3))
        with torch.no_grad():
            same = torch.equal(plain(*batch()), tuned.view(*batch()))
        assert same == tuned.tuner.identity_at_init

    def test_every_trainable_parameter_gets_a_gradient_and_nothing_else_does(self, moved: Tuned) -> None:
        tuned = moved
        tuned.view.train()
        tuned.view(*batch()).square().sum().backward()
        trainable = tuned.trainable()
        without = [name for name, p in trainable.items() if p.grad is None]
        assert not without
        # A key bias moves no attention weight, so its gradient may be zero up to rounding; matrices must move.
        still = [name for name, p in trainable.items() if p.ndim >= 2 and not p.grad.abs().sum() > 0]
        assert not still
        mine = {id(p) for p in trainable.values()}
        assert all(p.grad is None for p in tuned.view.parameters() if id(p) not in mine)
        assert tuned.trainable_parameters == sum(p.numel() for p in tuned.view.parameters() if p.requires_grad)
        assert any(name.startswith("head.") for name in trainable)

    def test_state_travels_to_a_new_view(self, base: Base, strategy: str, moved: Tuned) -> None:
        first = moved
        second = create(strategy).prepare(base.view(CLASSES, seed=4))
        second.load_state_dict(first.state_dict())
        with torch.no_grad():
            assert torch.equal(first.view(*batch()), second.view(*batch()))

    def test_a_text_is_answered_alone_as_in_a_batch(self, moved: Tuned) -> None:
        tuned = moved
        ids, mask = batch()
        with torch.no_grad():
            expected = tuned.view(ids, mask)
            alone = [tuned.view(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(1).tolist())]
        assert (torch.cat(alone) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
        assert expected.std() > 1e-4

    def test_merged_computes_the_same(self, base: Base, moved: Tuned) -> None:
        tuned = moved
        if not tuned.tuner.mergeable:
            with pytest.raises(NotMergeableError):
                tuned.merge()
            return
        before = tuned.state_dict()
        merged = tuned.merge()
        with torch.no_grad():
            ours, theirs = tuned.view(*batch()), merged(*batch())
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))
        plain = base.view(CLASSES, seed=3)
        with torch.no_grad():
            assert not torch.equal(plain(*batch()), theirs)
        assert all(torch.equal(before[name], tensor) for name, tensor in tuned.state_dict().items())
        assert not any("lora" in name for name, _ in merged.named_parameters())

    def test_strict_load_lists_every_problem_and_changes_nothing(self, moved: Tuned) -> None:
        tuned = moved
        before = tuned.state_dict()
        state = {name: tensor + 1 for name, tensor in before.items()}
        names = sorted(state)
        gone, bent = names[0], names[-1]
        del state[gone]
        if bent != gone:
            state[bent] = torch.zeros(1, 1, 1)
        state["nobody"] = torch.zeros(2)
        with pytest.raises(StateError) as caught:
            tuned.load_state_dict(state)
        assert caught.value.missing == (gone,)
        assert caught.value.unexpected == ("nobody",)
        if bent != gone:
            assert bent in str(caught.value) and "(1, 1, 1)" in str(caught.value)
        assert all(torch.equal(before[name], tensor) for name, tensor in tuned.state_dict().items())

    def test_learns_a_toy_problem(self, base: Base, strategy: str) -> None:
        if strategy not in STRATEGIES[:5] and base.architecture.model_type not in ("bert", "gpt2", "llama"):
            pytest.skip("three architectures are enough for this, which takes longest")
        tuned = create(strategy).prepare(base.view(2, pooling="mean", seed=3))
        ids, mask = batch(rows=16)
        labels = torch.arange(16) % 2
        ids = torch.where(labels[:, None].bool(), ids.clamp(max=120), ids.clamp(min=140)) * mask
        tuned.view.train()
        groups = tuned.parameter_groups(0.02, 0.0)
        optimizer = torch.optim.AdamW(groups)
        losses = []
        for _ in range(60):
            loss = torch.nn.functional.cross_entropy(tuned.view(ids, mask), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if losses[-1] < 0.35:
                break
        assert losses[-1] < 0.35 < losses[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_base_keeps_its_digest_while_two_threads_train(strategy: str) -> None:
    base = tiny_base("bert")
    before = base.digest
    failures: list[BaseException] = []
    seen: list[str] = []

    def work(seed: int) -> None:
        try:
            tuned = create(strategy).prepare(base.view(CLASSES, seed=seed))
            tuned.view.train()
            optimizer = torch.optim.SGD(list(tuned.trainable().values()), lr=0.5)
            for step in range(5):
                optimizer.zero_grad()
                tuned.view(*batch(step)).square().sum().backward()
                optimizer.step()
                seen.append(backbone_digest(base.backbone.named_parameters(), base.config.to_dict()))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen) == 10 and set(seen) == {before}
    assert not any(p.requires_grad for p in base.backbone.parameters())


@pytest.mark.parametrize("name", ARCHITECTURE_NAMES)
def test_coverage_is_complete(name: str) -> None:
    base = tiny_base(name)
    per_block = {"gpt2": 4, "llama": 7, "qwen3": 7, "gpt_neox": 4, "modernbert": 4, "longformer": 9}.get(name, 6)
    for strategy in ("lora", "lora-scratch"):
        everything = create(strategy).prepare(base.view(CLASSES)).coverage
        assert everything is not None
        assert len(everything.modules) == len(everything.available) == 3 * per_block
        last = create(strategy, blocks=1).prepare(base.view(CLASSES)).coverage
        assert last is not None and len(last.modules) == per_block and last.blocks == (2,)
        assert str(last) == f"{per_block} of {3 * per_block} linear layers in 1 of 3 blocks"
        attention = create(strategy, targets="attention").prepare(base.view(CLASSES)).coverage
        assert attention is not None and len(attention.modules) == 3 * len(base.architecture.attention)
        both = create(strategy, targets="attention+output").prepare(base.view(CLASSES)).coverage
        assert both is not None and len(both.modules) == len(attention.modules) + 3


@pytest.mark.parametrize(("name", "pooling"), HEADS)
def test_padding_changes_nothing(name: str, pooling: str) -> None:
    view = tiny_base(name).view(CLASSES, pooling, seed=3)
    ids, mask = batch(rows=6, width=14)
    lengths = mask.sum(1).tolist()
    more, left = torch.zeros(6, 40, dtype=torch.long), torch.zeros(6, 40, dtype=torch.long)
    more_mask, left_mask = torch.zeros_like(more), torch.zeros_like(left)
    more[:, :14], more_mask[:, :14] = ids, mask
    for row, length in enumerate(lengths):
        left[row, 40 - length :], left_mask[row, 40 - length :] = ids[row, :length], 1
    with torch.no_grad():
        expected = view(ids, mask)
        alone = torch.cat([view(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths)])
        answers = {"alone": alone, "extra padding": view(more, more_mask), "left": view(left, left_mask)}
    for kind, logits in answers.items():
        assert (logits - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())), kind
    assert expected.std() > 1e-4  # The rows do differ, so equality says something.


def test_padding_tokens_may_be_any_token() -> None:
    for name in ARCHITECTURE_NAMES:
        view = tiny_base(name).view(CLASSES, seed=3)
        ids, mask = batch()
        with torch.no_grad():
            assert torch.allclose(view(ids, mask), view(torch.where(mask.bool(), ids, 77), mask), atol=1e-6), name


@pytest.mark.parametrize("strategy", ["lora", "lora-scratch"])
def test_settings_are_checked_on_construction(strategy: str) -> None:
    with pytest.raises(UsageError, match=r"rank 0.*alpha -1.*dropout 1"):
        create(strategy, rank=0, alpha=-1.0, dropout=1.0)
    with pytest.raises(UsageError, match=r"--depth does not apply.*--rank, --alpha"):
        create(strategy, depth=3)
    with pytest.raises(TargetError, match=r"'classifier'.*attention\.self\.query"):
        create(strategy, targets="classifier").prepare(tiny_base("bert").view(2))
    with pytest.raises(UsageError, match="between 1 and 3"):
        create(strategy, blocks=4).prepare(tiny_base("bert").view(2))


def test_an_ending_is_a_whole_name() -> None:
    """``lin`` must not match ``q_lin``, as endswith would."""
    with pytest.raises(TargetError, match="'lin'"):
        create("lora", targets="lin").prepare(tiny_base("distilbert").view(2))


def test_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'lora-scrach'. Did you mean 'lora-scratch'\?"):
        create("lora-scrach")


def test_rank_and_alpha_scale_the_change() -> None:
    """The change is alpha / rank times B A: neither alpha (16 times too much at rank 16) nor rank squared."""
    base = tiny_base("bert")
    for strategy in ("lora", "lora-scratch"):
        tuned = create(strategy, rank=4, alpha=6.0, targets="attention.self.query", blocks=1).prepare(base.view(2))
        randomise(tuned)
        name = tuned.coverage.modules[0] if tuned.coverage else ""
        layer, plain = tuned.view.backbone.get_submodule(name), base.backbone.get_submodule(name)
        state = tuned.state_dict()
        a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        assert a.shape == (4, WIDTH) and b.shape == (WIDTH, 4)
        x = torch.randn(2, 3, WIDTH)
        with torch.no_grad():
            expected = plain(x) + 1.5 * x @ a.T @ b.T
            assert torch.allclose(layer(x), expected, atol=1e-5)
