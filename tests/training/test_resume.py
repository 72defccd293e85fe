"""A run that was interrupted and went on is, bit for bit, the run that never stopped: wherever, whatever trains."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_clf.errors import CheckpointError, TrainingError, UsageError
from lora_clf.inference.precision import has_native_bf16
from lora_clf.training.checkpoint import read_checkpoint
from lora_clf.training.checkpoints import Checkpoints, generations
from lora_clf.training.interruption import Terminated
from lora_clf.training.loop import train
from lora_clf.training.result import Progress, Result
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuned, Tuner
from lora_clf.tuners.full import Full
from tests.bases import tiny_base
from tests.training.test_loop import toy

# 40 rows in batches of 8, two a step: steps of 16, 16 and 8 rows, three an epoch.
SETTINGS = TrainSettings(epochs=2, batch_size=8, accumulate=2, lr=2e-2, precision="fp32", seed=3)
STEPS = 6
DATA = toy(rows=40)


def tuner_of(strategy: str) -> Tuner:
    flags = strategies()[strategy].flags()
    return create(strategy, **({"dropout": 0.3} if "dropout" in flags else {}))


def interrupted(at: int, *args: Any, epoch_end: bool = False, **named: Any) -> None:
    """Train until Ctrl-C comes after step ``at``, or after the validation that follows it."""

    def stop(now: Progress) -> None:
        if now.step == at and (now.validation is not None) == epoch_end:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*args, **named, progress=stop)


def assert_equal(mine: Result, other: Result) -> None:
    """Weights, history, metrics and logits."""
    ours, theirs = mine.adapter.tuned.state_dict(), other.adapter.tuned.state_dict()
    assert ours.keys() == theirs.keys() and len(ours) >= 2
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert mine.history == other.history and mine.best_epoch == other.best_epoch
    assert mine.validation == other.validation and mine.test == other.test
    assert np.array_equal(mine.test_logits, other.test_logits)


def assert_same(mine: Result, other: Result, place: Path) -> None:
    """All that, and every byte of the adapter."""
    assert_equal(mine, other)
    assert saved(mine, place) == saved(other, place)


def saved(result: Result, place: Path) -> dict[str, str]:
    """The digest of each file of the saved adapter."""
    folder = result.save(place / "adapter", force=True)
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    assert len(found) == 3
    return found


def optimizer_of(folder: Path) -> dict[str, Tensor]:
    """The optimizer's state in the newest checkpoint."""
    return read_checkpoint(generations(folder)[-1]).tensors["optimizer"]


@pytest.mark.parametrize("strategy", list(strategies()))
def test_interrupted_after_any_step_it_ends_with_the_same_bytes(strategy: str, tmp_path: Path) -> None:
    base, tuner, folder = tiny_base("bert"), tuner_of(strategy), tmp_path / "kept"
    settings = replace(SETTINGS, accumulate=1, batch_size=16)  # 16, 16 and 8 rows
    whole = train(base, DATA, tuner, settings)
    expected = saved(whole, tmp_path)
    moments: dict[int, Path] = {}

    def keep(now: Progress) -> None:
        """Put the checkpoint of the step before aside."""
        if now.step > 1 and now.validation is None:
            moments[now.step - 1] = tmp_path / f"after-{now.step - 1}"
            shutil.copytree(generations(folder)[-1], moments[now.step - 1])

    often = train(base, DATA, tuner, settings, progress=keep, checkpoints=Checkpoints(folder, every=1))
    last = optimizer_of(folder)
    assert len(last) >= 6 and {name.split("/")[0] for name in last} == {"exp_avg", "exp_avg_sq", "step"}
    assert saved(often, tmp_path) == expected and not folder.exists()
    assert sorted(moments) == [*range(1, STEPS)]
    if strategy not in ("full", "lora", "last-block"):  # for the others one inside each epoch is enough
        moments = {step: moments[step] for step in (1, STEPS - 1)}
    for step, moment in moments.items():
        shutil.copytree(moment, folder / "checkpoint-000007")
        resumed = train(base, DATA, tuner, settings, checkpoints=Checkpoints(folder, every=1, resume=True))
        assert resumed.resumed_step == step and not resumed.warnings
        assert_equal(resumed, whole)
        now = optimizer_of(folder)
        assert now.keys() == last.keys() and all(torch.equal(now[name], last[name]) for name in last)
        if step in (1, STEPS - 1):
            assert saved(resumed, tmp_path) == expected
        shutil.rmtree(folder, ignore_errors=True)


RECIPES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lora", {"sampling": "balanced", "schedule": "cosine", "layer_decay": 0.7}),
    ("full", {"class_weight": "c0=1,c1=3.3", "label_smoothing": 0.1, "schedule": "inverse-sqrt"}),
    ("last-block", {"loss": "focal", "class_weight": "balanced", "head_dropout": 0.4, "schedule": "constant"}),
    ("bottleneck", {"sampling": "balanced", "stop_on": "accuracy", "patience": 2, "head_dropout": 0.2}),
    ("head-only", {"sampling": "balanced", "class_weight": "c1=2", "stop_on": "mcc"}),
)


@pytest.mark.parametrize(("strategy", "recipe"), RECIPES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_whatever_the_recipe(strategy: str, recipe: dict[str, Any], accumulate: int, tmp_path: Path) -> None:
    base, tuner, kept = tiny_base("bert"), tuner_of(strategy), Checkpoints(tmp_path / "kept", every=0)
    data = replace(DATA, train=DATA.train.take([i for i in range(40) if i % 2 == 0 or i % 6 == 1]))
    settings = replace(SETTINGS, accumulate=accumulate, batch_size=6, **recipe)  # 27 rows: the last batch has three
    whole = train(base, data, tuner, settings)
    assert not np.array_equal(whole.test_logits, train(base, data, tuner, SETTINGS).test_logits)
    steps = 2 * (5 if accumulate == 1 else 3)
    for at in (steps // 2 - 1, steps // 2 + 1):  # inside the first epoch and inside the second
        interrupted(at, base, data, tuner, settings, checkpoints=kept)
        resumed = train(base, data, tuner, settings, checkpoints=replace(kept, resume=True))
        assert resumed.resumed_step == at
        assert_same(resumed, whole, tmp_path)


@pytest.mark.parametrize("recipe", [recipe for _, recipe in RECIPES])
def test_another_recipe_is_another_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    interrupted(2, base, DATA, Full(), SETTINGS, checkpoints=kept)
    with pytest.raises(CheckpointError) as refused:
        train(base, DATA, Full(), replace(SETTINGS, **recipe), checkpoints=replace(kept, resume=True))
    assert all(f"--{name.replace('_', '-')} is {value}" in str(refused.value) for name, value in recipe.items())


@pytest.mark.parametrize("at", [3, 6])
def test_after_a_validation_too(at: int, tmp_path: Path) -> None:
    base, tuner, kept = tiny_base("gpt2"), tuner_of("lora"), Checkpoints(tmp_path / "kept", every=0)
    whole = train(base, DATA, tuner, SETTINGS)
    interrupted(at, base, DATA, tuner, SETTINGS, checkpoints=kept, epoch_end=True)
    facts = read_checkpoint(generations(tmp_path / "kept")[-1]).facts
    assert facts["position"]["epoch"] == at // 3 + 1 and facts["position"]["batch"] == 0
    assert len(facts["history"]) == at // 3
    assert_same(train(base, DATA, tuner, SETTINGS, checkpoints=replace(kept, resume=True)), whole, tmp_path)


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    base, tuner, kept = tiny_base("bert"), tuner_of("full"), Checkpoints(tmp_path / "kept", every=1, resume=True)
    whole = train(base, DATA, tuner, SETTINGS)
    for step in range(1, STEPS + 1):
        interrupted(step, base, DATA, tuner, SETTINGS, checkpoints=kept)
        assert len(generations(tmp_path / "kept")) == min(2, 2 * step - 1)
    resumed = train(base, DATA, tuner, SETTINGS, checkpoints=kept)
    assert resumed.resumed_step == STEPS
    assert_same(resumed, whole, tmp_path)


def test_after_the_best_epoch_and_with_patience(tmp_path: Path) -> None:
    # A rate that ruins the weights after the first steps: later epochs are worse than the best.
    settings = replace(SETTINGS, epochs=12, lr=0.3, patience=2, clip=0.0, warmup=0.0, accumulate=1)
    base, tuner = tiny_base("bert"), tuner_of("full")
    whole = train(base, DATA, tuner, settings)
    best, last = whole.best_epoch, len(whole.history)
    assert last < 12 and last - best == 2
    kept = Checkpoints(tmp_path / "kept", every=0, replace=True)
    for step, epoch_end in ((best * 5 + 1, False), (best * 5 + 7, False), (last * 5, False), (last * 5, True)):
        interrupted(step, base, DATA, tuner, settings, checkpoints=kept, epoch_end=epoch_end)
        stored = read_checkpoint(generations(tmp_path / "kept")[-1])
        assert stored.facts["best"]["epoch"] == best and len(stored.tensors["best"]) >= 2
        resumed = train(base, DATA, tuner, settings, checkpoints=replace(kept, resume=True))
        assert_same(resumed, whole, tmp_path)


@pytest.mark.skipif(not has_native_bf16(torch.device("cpu")), reason="this processor has no native bf16")
def test_in_bf16(tmp_path: Path) -> None:
    base, tuner, settings = tiny_base("bert"), tuner_of("lora"), replace(SETTINGS, precision="bf16")
    whole = train(base, DATA, tuner, settings)
    kept = Checkpoints(tmp_path / "kept", every=0)
    interrupted(4, base, DATA, tuner, settings, checkpoints=kept)
    resumed = train(base, DATA, tuner, settings, checkpoints=replace(kept, resume=True))
    assert_same(resumed, whole, tmp_path)


def test_what_auto_means_comes_from_the_checkpoint(tmp_path: Path) -> None:
    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    interrupted(4, base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
    free = replace(SETTINGS, precision="auto")
    resumed = train(base, DATA, tuner_of("lora"), free, checkpoints=replace(kept, resume=True))
    assert resumed.adapter.header.precision == "fp32"


def test_with_a_scaled_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fp16 needs, here in fp32: the scale and its growth go on where they were."""
    enabled = torch.amp.GradScaler

    def scaler(device: str, **_: object) -> torch.amp.GradScaler:
        return enabled(device, enabled=True, init_scale=2.0**10, growth_interval=2)

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    whole = train(base, DATA, tuner_of("lora"), SETTINGS)
    interrupted(5, base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
    stored = read_checkpoint(generations(tmp_path / "kept")[-1]).facts["scaler"]
    assert stored["scale"] == 2.0**12 and stored["_growth_tracker"] == 1
    resumed = train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))
    assert_same(resumed, whole, tmp_path)


@dataclass(frozen=True)
class Restless(Full):
    """Trains everything, and from step to step changes what trains by what it remembers."""

    name: ClassVar[str] = "restless"

    def prepare(self, view: Any) -> Tuned:
        super().prepare(view)
        return RestlessTuned(self, view)


@dataclass
class Memory:
    average: Tensor = field(default_factory=lambda: torch.zeros(2))
    seen: list[int] = field(default_factory=list)


class RestlessTuned(Tuned):
    def __init__(self, tuner: Tuner, view: Any) -> None:
        super().__init__(tuner, view)
        self.memory = Memory()

    def after_step(self, step: int, total_steps: int) -> None:
        bias = self.view.head_parameters()[-1]
        assert bias.grad is not None and bias.shape == (2,)
        self.memory.average = 0.5 * self.memory.average + 0.5 * bias.grad
        self.memory.seen.append(step)
        with torch.no_grad():
            bias.add_(self.memory.average, alpha=len(self.memory.seen) * 0.1)

    def run_state(self) -> dict[str, Any]:
        return {"average": self.memory.average, "seen": self.memory.seen}

    def load_run_state(self, state: Any) -> None:
        self.memory = Memory(state["average"].clone(), list(state["seen"]))


def test_what_a_strategy_carries_from_step_to_step_goes_on(tmp_path: Path) -> None:
    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    whole = train(base, DATA, Restless(), SETTINGS).adapter.tuned.state_dict()
    interrupted(4, base, DATA, Restless(), SETTINGS, checkpoints=kept)
    stored = read_checkpoint(generations(tmp_path / "kept")[-1])
    assert stored.facts["strategy"] == {"seen": [1, 2, 3, 4]} and stored.tensors["strategy"]["average"].abs().min() > 0
    resumed = train(base, DATA, Restless(), SETTINGS, checkpoints=replace(kept, resume=True))
    found = resumed.adapter.tuned.state_dict()
    assert len(found) > 10 and all(torch.equal(found[name], whole[name]) for name in whole)


class OddTuned(RestlessTuned):
    """One of whose run no checkpoint can be made, for the reason ``odd``."""

    odd: ClassVar[str] = ""

    def run_state(self) -> dict[str, Any]:
        odd = {"object": self.memory, "nested": {"inside": self.memory.average}, "complex": torch.zeros(2) * 1j}
        return {"kept": odd[self.odd]} if self.odd in odd else {}

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        groups = super().parameter_groups(learning_rate, weight_decay)
        more = [torch.nn.Parameter(torch.ones(1))] if self.odd == "unnamed" else []
        return [*groups, *({"params": [each], "lr": learning_rate} for each in more)]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("object", r"run_state\(\) kept is a Memory that is no tensor and no plain JSON"),
        ("nested", r"run_state\(\) kept is a dict that is no tensor"),
        ("complex", r"run_state\(\) kept is of type torch.complex64"),
        ("unnamed", r"parameter_groups\(\) holds 1 tensors that trainable\(\) does not name"),
    ],
)
def test_what_no_checkpoint_can_hold_is_said_before_training(
    odd: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OddTuned, "odd", odd)
    monkeypatch.setattr(Restless, "prepare", lambda self, view: OddTuned(self, view))
    steps: list[Progress] = []
    with pytest.raises(UsageError, match=f"No checkpoint can be made of a restless run: {said}.*without checkpoints"):
        train(tiny_base("bert"), DATA, Restless(), SETTINGS, checkpoints=tmp_path / "kept", progress=steps.append)
    assert not steps and not (tmp_path / "kept").exists()
    assert train(tiny_base("bert"), DATA, Restless(), SETTINGS).history  # which needs none of that


def test_writing_checkpoints_changes_nothing(tmp_path: Path) -> None:
    base = tiny_base("gpt2")
    without = train(base, DATA, tuner_of("lora"), SETTINGS)
    assert_same(train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=tmp_path / "usual"), without, tmp_path)
    assert not (tmp_path / "usual").exists()
    often = train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=Checkpoints(tmp_path / "often", every=1))
    assert len(generations(tmp_path / "often")) == 2
    assert_same(often, without, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": replace(SETTINGS, epochs=5, weight_decay=0.5)}, ["--epochs is 5, the checkpoint has 2",
                                                                      "--weight-decay is 0.5"]),
        ({"settings": replace(SETTINGS, seed=4)}, ["--seed is 4, the checkpoint has 3"]),
        ({"settings": replace(SETTINGS, lr=1e-3)}, ["--lr is 0.001, the checkpoint has 0.02"]),
        ({"tuner": create("lora", rank=4, alpha=3.0)}, ["--alpha is 3.0", "--rank is 4", "--dropout is 0.0"]),
        ({"tuner": create("last-block")}, ["--strategy is last-block, the checkpoint has lora", "--blocks is"]),
        ({"data": replace(DATA, digest="1" * 64)}, ["data digest is 111111111111..., the checkpoint has 000000000000"]),
        ({"base": tiny_base("bert", seed=1)}, ["base digest is"]),
        ({"pooling": "first"}, ["--pooling is first, the checkpoint has mean"]),
        ({"settings": replace(SETTINGS, max_length=5)}, ["--max-length is 5, the checkpoint has 64"]),
    ],
)  # fmt: skip
def test_another_run_is_refused_by_name(changes: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    usual = {"base": tiny_base("bert"), "data": DATA, "tuner": tuner_of("lora"), "settings": SETTINGS}
    kept = Checkpoints(tmp_path / "kept", every=0)
    interrupted(2, **usual, checkpoints=kept)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "kept").rglob("*")) if path.is_file()}
    with pytest.raises(CheckpointError, match="not the run that was interrupted") as refused:
        train(**{**usual, **changes}, checkpoints=replace(kept, resume=True))
    assert all(name in str(refused.value) for name in named) and "\n" not in str(refused.value)
    assert before == {path: path.read_bytes() for path in sorted((tmp_path / "kept").rglob("*")) if path.is_file()}


def test_a_checkpoint_of_other_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests hold, but what was loaded is not what was there: the loss tells."""
    from lora_clf.training import snapshot

    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    interrupted(5, base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
    real = snapshot._load_weights

    def forgetful(run: Any, weights: dict[str, Tensor]) -> None:
        real(run, {name: torch.zeros_like(tensor) for name, tensor in weights.items()})

    monkeypatch.setattr(snapshot, "_load_weights", forgetful)
    with pytest.raises(CheckpointError, match=r"The loss of the first training texts is .* and was"):
        train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))
    monkeypatch.setattr(snapshot, "_load_weights", lambda run, _: [p.requires_grad_(False) for p in run.parameters])
    with pytest.raises(CheckpointError, match=r"nothing would train: .*lora_A"):
        train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))


def test_on_another_machine_it_says_that_last_bits_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    interrupted(5, base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
    monkeypatch.setattr("lora_clf.training.snapshot.version", lambda name: f"{name} of tomorrow")
    resumed = train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))
    assert resumed.warnings == ("Resumed with another peft: the last bits may not be those of a run without a break.",)


def test_a_head_that_is_solved_for_needs_no_checkpoint(tmp_path: Path) -> None:
    settings = replace(SETTINGS, lr=None)
    kept = Checkpoints(tmp_path / "kept", every=1)
    result = train(tiny_base("bert"), DATA, create("head-only"), settings, checkpoints=kept)
    assert "solver" in result.adapter.header.training and not kept_files(tmp_path)
    assert any("--checkpoint-every had no effect" in warning for warning in result.warnings)


def kept_files(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


def test_a_run_that_diverges_keeps_nothing_to_go_on_from(tmp_path: Path) -> None:
    settings = replace(SETTINGS, lr=1e20, clip=0.0, epochs=5)
    with pytest.raises(TrainingError, match="Try --lr"):
        train(tiny_base("gpt2"), DATA, create("full"), settings, checkpoints=Checkpoints(tmp_path / "a" / "b", every=1))
    assert not kept_files(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="signals work otherwise there")
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_inside_a_step_waits_for_its_end(number: int, raised: type, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from lora_clf.training.run import Run

    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=0)
    whole = train(base, DATA, tuner_of("lora"), SETTINGS)
    real = Run._move
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it

    def struck(run: Run) -> bool:
        if run.step == 3 and run.resumed_step is None:
            os.kill(os.getpid(), number)
        return real(run)

    try:
        monkeypatch.setattr(Run, "_move", struck)
        with pytest.raises(raised):
            train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    facts = read_checkpoint(generations(tmp_path / "kept")[-1]).facts
    assert facts["position"]["step"] == 4  # the step came to its end
    resumed = train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))
    assert_same(resumed, whole, tmp_path)


def test_a_step_that_was_torn_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another thread no signal can be held back: then the checkpoint before it is the last one."""
    from lora_clf.training.run import Run

    base, kept = tiny_base("bert"), Checkpoints(tmp_path / "kept", every=1)
    whole = train(base, DATA, tuner_of("lora"), SETTINGS)
    real = Run._move

    def torn(run: Run) -> bool:
        moved = real(run)
        if run.step == 3 and run.resumed_step is None:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Run, "_move", torn)
    ended: list[BaseException] = []
    in_thread(lambda: train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=kept), ended)
    assert [type(error) for error in ended] == [KeyboardInterrupt]
    assert read_checkpoint(generations(tmp_path / "kept")[-1]).facts["position"]["step"] == 3
    resumed = train(base, DATA, tuner_of("lora"), SETTINGS, checkpoints=replace(kept, resume=True))
    assert_same(resumed, whole, tmp_path)


def in_thread(work: Callable[[], object], ended: list[BaseException]) -> None:
    def run() -> None:
        try:
            work()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_no_checkpoint_to_go_on_from_is_said_and_the_run_begins(tmp_path: Path) -> None:
    told: list[str] = []
    kept = Checkpoints(tmp_path / "kept", resume=True, tell=told.append)
    result = train(tiny_base("bert"), DATA, tuner_of("lora"), SETTINGS, checkpoints=kept)
    assert result.resumed_step is None
    assert told == [f"There is no checkpoint in {tmp_path / 'kept'}; training begins at the start."]


def test_checkpoints_hold_no_texts_and_no_pickle(tmp_path: Path) -> None:
    interrupted(5, tiny_base("bert"), DATA, tuner_of("lora"), SETTINGS, checkpoints=tmp_path / "kept")
    (folder,) = generations(tmp_path / "kept")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert set(files) == {
        "weights.safetensors", "optimizer.safetensors", "best.safetensors", "run.json", "manifest.json",
    }  # fmt: skip
    texts = [text.encode() for text in DATA.train.texts if len(text) > 5]  # shorter ones are in any numbers
    assert len(texts) > 20 and not any(text in content for text in texts for content in files.values())
    assert json.loads(files["run.json"])["identity"]["--strategy"] == "lora"
    for name, content in files.items():
        if name.endswith(".safetensors"):
            head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            assert len(head) >= 2 and all(entry["dtype"] == "F32" for entry in head.values())
