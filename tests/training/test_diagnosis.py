"""The diagnosis of a training: each trouble is found where it is, and a healthy run hears nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_clf.base.base import load_base
from lora_clf.data.dataset import Dataset, Part, load_data
from lora_clf.errors import BaseError
from lora_clf.tasks.classification import Classification
from lora_clf.training.diagnosis import Record, diagnose
from lora_clf.training.loop import train
from lora_clf.training.record import constant_loss, padding_of
from lora_clf.training.result import Result
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy


def metrics(loss: float, mcc: float = 0.9, matrix: Any = ((60, 5), (4, 31)), labels: Any = ("ham", "spam")) -> Any:
    return {"loss": loss, "mcc": mcc, "confusion_matrix": [list(row) for row in matrix], "labels": list(labels)}


def record(training: Any = (0.5, 0.3, 0.2), validation: Any = (0.4, 0.3, 0.25), **more: Any) -> Record:
    """A healthy run of three epochs, unless told otherwise."""
    scores = more.pop("metrics", {})
    epochs = zip(training, validation, strict=True)
    history = [
        {"epoch": n, "train_loss": one, "validation": metrics(other, **scores)}
        for n, (one, other) in enumerate(epochs, 1)
    ]
    usual: dict[str, Any] = {
        "best_epoch": 1 + int(np.argmin(validation)), "counts": {"ham": 600, "spam": 400}, "constant_loss": 0.67,
        "rate": (1e-3, 1e-3), "steps": 300, "seconds": 20.0, "blocks": (6, 6), "depth_flag": True, "padding": 0.05,
        "long": 90,
    }  # fmt: skip
    return Record(history, **{**usual, **more})


NOTHING_LEARNED = {"mcc": 0.0, "matrix": ((65, 0), (35, 0))}


def names(found: Record) -> list[str]:
    return [finding.name for finding in diagnose(found)]


HEALTHY = {
    "as it should be": record(),
    "hard, yet something was learned": record((0.66, 0.65, 0.64), (0.66, 0.65, 0.645), metrics={"mcc": 0.2}),
    "no error at all": record(
        (0.3, 0.05, 0.01), (0.1, 0.02, 0.012), metrics={"mcc": 1.0, "matrix": ((65, 0), (0, 35))}
    ),
    "small losses that waver": record((0.3, 0.05, 0.01), (0.02, 0.04, 0.06)),
    "a gap, as there always is": record((0.3, 0.1, 0.05), (0.2, 0.18, 0.17)),
    "weighed losses do not compare": record((0.2, 0.05, 0.01), (0.5, 0.42, 0.4), plain=False),
    "one epoch": record((0.4,), (0.3,)),
    "a head that was solved for": record((0.1,), (0.2,), solved=True, blocks=(6, 0), seconds=500.0),
    "slow, with nothing to do about it": record(seconds=500.0, blocks=(6, 2)),
    "quick, with much to do about it": record(seconds=60.0, batch_size=2, padding=0.6),
    "ten rows": record(counts={"ham": 600, "spam": 10}),
    "a label that validation hardly has": record(
        metrics={"matrix": ((60, 5, 0), (4, 27, 0), (2, 2, 0)), "labels": ("a", "b", "c")}
    ),
    "one label on validation": record(metrics={"matrix": ((100, 0), (0, 0)), "mcc": 0.0}),
    "no epoch": Record([], 1),
}


@pytest.mark.parametrize("case", list(HEALTHY))
def test_a_healthy_run_hears_nothing(case: str) -> None:
    assert diagnose(HEALTHY[case]) == ()


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"rate": (1e-6, 1e-3)}, "the rate 1e-06 is low: try --lr 0.001"),
        ({"rate": (0.1, 1e-3)}, "the rate 0.1 is too high: try --lr 0.001"),
        ({"training": (0.7, 1.5, 2.0), "rate": (1e-3, 1e-3)}, "the rate 0.001 is too high: try --lr 0.0002"),
        ({"steps": 12}, "12 steps are few: try --epochs 50"),
        ({"training": (0.68, 0.68, 0.68)}, "did not move: try --lr 0.005"),
        ({"training": (0.69, 0.67, 0.66)}, "try --epochs 6 or --lr 0.003"),
        ({"solved": True}, "try --strategy lora"),
    ],
)
def test_not_learning(more: dict[str, Any], advice: str) -> None:
    more = {"training": (0.70, 0.68, 0.67), **more}
    bad = record(more.pop("training"), (0.68, 0.67, 0.67), metrics=NOTHING_LEARNED, **more)
    found = {finding.name: finding for finding in diagnose(bad)}
    assert list(found) == ["not learning", "always one label"]
    finding = found["not learning"]
    assert "the validation loss is 0.670, that of one answer for every text 0.670" in finding.found
    assert advice in finding.advice and finding.numbers["skill"] == 0.0


def test_always_one_label_and_what_evens_it() -> None:
    bad = record((0.5, 0.4, 0.35), (0.5, 0.45, 0.4), metrics=NOTHING_LEARNED)
    (finding,) = diagnose(bad)
    assert finding.name == "always one label"
    assert finding.found == "ham was answered for all 100 validation texts, 35 of which have another label"
    assert "--class-weight balanced" in finding.advice
    (finding,) = diagnose(replace(bad, evened=True))
    assert "--class-weight" not in finding.advice


def test_a_label_that_is_never_answered() -> None:
    bad = record(metrics={"matrix": ((60, 5, 0), (4, 27, 0), (3, 6, 0)), "labels": ("a", "b", "c")})
    (finding,) = diagnose(bad)
    assert finding.name == "never answered" and finding.found == "c (9 validation texts) was never answered"


def test_too_few_examples() -> None:
    (finding,) = diagnose(record(counts={"ham": 600, "spam": 9, "odd": 0}))
    assert finding.name == "too few examples" and "training rows: odd 0, spam 9; fewer than 10" in finding.found


def test_overfitting_as_a_rise_and_as_a_gap() -> None:
    (rise,) = diagnose(record((0.4, 0.1, 0.02), (0.25, 0.3, 0.45)))
    assert rise.name == "overfitting" and "try --epochs 1 or --patience 1" in rise.advice
    assert rise.found.startswith("from epoch 1 to 3 the validation loss rose from 0.250 to 0.450 while the training")
    (weighed,) = diagnose(record((0.4, 0.1, 0.02), (0.25, 0.3, 0.45), plain=False))
    assert weighed == rise
    (gap,) = diagnose(record((0.3, 0.1, 0.02), (0.4, 0.35, 0.33)))
    assert gap.found == "the loss is 0.020 in training and 0.330 on validation"
    assert "more training rows" in gap.advice


def test_slow_and_what_would_be_faster() -> None:
    (finding,) = diagnose(record(seconds=300.0))
    assert finding.name == "slow" and finding.found == "training took 300 s, 100 s an epoch"
    assert finding.advice == "try --blocks 2, which runs the lower 4 of 6 blocks once, not in every epoch"
    (finding,) = diagnose(record(seconds=300.0, depth_flag=False, batch_size=4, padding=0.5))
    assert finding.advice == (
        "try --strategy lora --blocks 2, which runs the lower 4 of 6 blocks once; --batch-size 16 in place of 4; "
        "--max-length 90, into which nine of ten texts fit: 50% of the computed tokens are padding"
    )


def test_the_loss_of_one_answer_for_all_is_the_entropy() -> None:
    task = Classification(("a", "b", "c"))
    training, validation = np.repeat([0, 1, 2], (70, 20, 10)), np.array([0, 0, 1, 2])
    shares = np.array([0.7, 0.2, 0.1])
    assert constant_loss(task, training, validation) == pytest.approx(-np.log(shares[validation]).mean(), abs=1e-5)


def test_padding_is_counted_in_the_batches_of_training() -> None:
    assert padding_of(np.full(40, 7), 8, 0) == 0.0
    mixed = padding_of(np.array([1, 99] * 20), 40, 0)
    assert mixed == pytest.approx(1 - 50 / 99)


def run(data: Dataset, strategy: str = "lora", **asked: Any) -> Result:
    settings = TrainSettings(**{"epochs": 8, "batch_size": 8, "lr": 1e-2, "precision": "fp32", **asked})
    return train(tiny_base("bert"), data, create(strategy), settings)


def test_real_runs() -> None:
    healthy = run(toy(classes=2))
    assert healthy.validation["accuracy"] == 1 and healthy.diagnosis == ()
    still = run(toy(), lr=1e-9, epochs=2)
    assert "not learning" in [finding.name for finding in still.diagnosis]
    assert "1e-09 is low: try --lr 0.001" in still.diagnosis[0].advice
    random = np.random.default_rng(0)

    def shuffled(part: Part) -> Part:
        return replace(part, labels=tuple(random.permutation(part.labels).tolist()))

    whole = toy(48)
    noise = replace(whole, train=shuffled(whole.train), validation=shuffled(whole.validation))
    learned_by_heart = run(noise, "full", epochs=40, lr=5e-3)
    assert "overfitting" in [finding.name for finding in learned_by_heart.diagnosis]
    rare = replace(whole, train=whole.train.take([*range(0, 48, 2), 1, 3]))
    assert "too few examples" in [finding.name for finding in run(rare, epochs=1).diagnosis]


@pytest.mark.slow
@pytest.mark.usefixtures("real_cache")
@pytest.mark.parametrize("strategy", ["head-only", "last-block", "lora"])
def test_at_defaults_the_demo_corpus_hears_nothing(strategy: str) -> None:
    try:
        base = load_base("minilm", device="cpu")
    except BaseError:
        pytest.skip("needs the real base in the cache (lora-clf bases fetch minilm)")
    result = train(base, load_data("demo"), create(strategy))
    assert result.validation["accuracy"] > 0.8 and result.diagnosis == ()
