"""Comparisons that nobody ran: predictions are drawn, so that what can be told apart is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lora_clf.comparison.baselines import Baseline
from lora_clf.comparison.comparison import BaselineOutcome, Comparison, facts_of_data
from lora_clf.comparison.contender import Contender
from lora_clf.comparison.outcome import Outcome, Predictions
from lora_clf.comparison.plan import Plan
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset

PARAMETERS = {"head-only": 770, "lora": 332_546, "lora-scratch": 332_546, "last-block": 1_775_234, "full": 22_566_146}
ENVIRONMENT = {"versions": {"torch": "2", "transformers": "5"}, "machine": {"instruction_set": "AVX2", "threads": 1}}
BASE = {"name": "tiny", "digest": "b" * 64, "tokenizer_digest": "t" * 64, "parameters": 1, "pooling": "mean"}


def invented(
    accuracy: dict[str, float], rows: int = 400, seeds: int = 3, baseline: float = 0.8, labels: tuple[str, ...] = ()
) -> Comparison:
    """Strategies of these accuracies, wrong on rows and seeds of their own."""
    names = labels or ("ham", "spam")
    draw = np.random.default_rng(0)
    truth = draw.integers(0, len(names), rows)

    def said(rate: float) -> Predictions:
        right = np.zeros(rows, dtype=bool)
        right[draw.permutation(rows)[: round(rate * rows)]] = True
        guess = np.where(right, truth, (truth + 1) % len(names))
        probabilities = np.full((rows, len(names)), 0.1 / (len(names) - 1))
        probabilities[np.arange(rows), guess] = 0.9
        return Predictions(np.arange(1, rows + 1), truth.astype(np.int64), probabilities)

    def part(prefix: str) -> Part:
        texts = tuple(f"{prefix} {draw.integers(10**15)} {number}" for number in range(rows))
        return Part(texts, tuple(names[label] for label in truth), tuple(range(1, rows + 1)))

    positive = names[1] if len(names) == 2 else None
    data = Dataset(
        "made", part("a"), part("b"), part("c"), tuple(names), positive, "near-copy-free", "d" * 64, None, "made.csv"
    )
    plan = Plan(tuple(Contender(name, name) for name in accuracy), tuple(range(seeds)))
    outcomes = [
        Outcome(
            digest=f"{name}{seed}",
            label=name,
            strategy=name,
            settings={},
            seed=seed,
            split_seed=0,
            fold=None,
            trainable_parameters=PARAMETERS[name],
            total_parameters=22_713_986,
            share=PARAMETERS[name] / 22_713_986,
            adapter_bytes=PARAMETERS[name] * 4 + 5000,
            tensor_bytes=PARAMETERS[name] * 4,
            seconds=10.0 + PARAMETERS[name] / 1e6,
            cold_seconds=10.0 + PARAMETERS[name] / 1e6,
            total_seconds=20.0,
            peak_memory_bytes=800_000_000,
            training_memory_bytes=300_000_000,
            device_memory_bytes=None,
            history=[],
            best_epoch=1,
            training={"lr": 0.001},
            environment=ENVIRONMENT,
            scores={"validation": {"accuracy": rate}, "test": {"accuracy": rate}},
            test=said(rate),
            validation=said(rate),
        )
        for name, rate in accuracy.items()
        for seed in range(seeds)
    ]
    plain = said(baseline)
    measured = Baseline(plain.probabilities, plain.probabilities, 1.0, 100, 400)
    datasets = {(0, None): data}
    return Comparison(
        plan,
        tuple(outcomes),
        (BaselineOutcome("TF-IDF + LR", 0, None, measured, plain, baseline),),
        (),
        {
            "base": BASE,
            "data": facts_of_data(plan, datasets),
            "environment": ENVIRONMENT,
            "command": None,
        },
        datasets,
    )


def write(comparison: Comparison, out: Path) -> Path:
    """The whole report."""
    from lora_clf.reports.report import write_report

    write_report(comparison, out)
    return out
