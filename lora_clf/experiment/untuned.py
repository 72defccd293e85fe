"""What the base can do without being tuned: the nearest centroid of its features, a head of random numbers, a prompt.

They stand beside majority and TF-IDF: a strategy that does not beat the nearest centroid has bought nothing with its
training, and an untrained head shows what the figures of this data look like by chance. Shapes: N texts, D width, C
classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_clf.comparison.baselines import Baseline
from lora_clf.comparison.comparison import BaselineOutcome, Failure
from lora_clf.metrics.probability import softmax

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.comparison.plan import Datasets
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.settings import TrainSettings

CENTROID, UNTRAINED, PROMPT = "nearest centroid", "untrained head", "prompt"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Untuned:
    """What was found, what was left out and why, and what failed."""

    outcomes: list[BaselineOutcome] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def measure_untuned(base: Base, datasets: Datasets, settings: TrainSettings) -> Untuned:
    """The baselines that need the base, on every data set.

    What the base makes of the texts is kept where the strategies will look for it, so it is computed once.

    Args:
        base: the loaded base; it is not changed.
        datasets: the plan's data; none where the task is not one label of several.
        settings: precision and length of the comparison.
    """
    found = Untuned()
    for (seed, fold), data in datasets.items():
        try:
            made = frozen_baselines(base, data, settings, seed)
        except Exception as error:  # no reason to lose what the strategies find
            found.failures.append(Failure(CENTROID, CENTROID, type(error).__name__, str(error)))
            break
        if CENTROID not in made and not found.left_out:
            reason = f"the head of {base.name} has no single vector a text to measure distances of"
            found.left_out.append({"label": CENTROID, "reason": reason})
        found.outcomes.extend(BaselineOutcome.of(label, baseline, data, seed, fold) for label, baseline in made.items())
    if base.architecture.causal:
        for (seed, fold), data in datasets.items():
            try:
                asked = prompted(base, data, settings)
            except Exception as error:
                found.failures.append(Failure(PROMPT, PROMPT, type(error).__name__, str(error)))
                break
            if asked is None:
                reason = f"the folder of {base.name} holds no language model's head"
                found.left_out.append({"label": PROMPT, "reason": reason})
                break
            found.outcomes.append(BaselineOutcome.of(PROMPT, asked, data, seed, fold))
    elif datasets:
        found.left_out.append({"label": PROMPT, "reason": f"{base.name} is an encoder, which answers no questions"})
    return found


def frozen_baselines(base: Base, data: Dataset, settings: TrainSettings, seed: int) -> dict[str, Baseline]:
    """Nearest centroid and untrained head on the frozen base's vectors, by name; of a long text its beginning.

    The centroid is left out where the head does not read one vector a text.
    """
    from lora_clf.inference.precision import resolve_precision
    from lora_clf.inference.runner import Runner
    from lora_clf.tuners import create

    precision = resolve_precision(settings.precision, base.device)
    tokens = {name: base.encode(part.texts, settings.max_length) for name, part in data.parts.items()}
    tuned = create("head-only").prepare(base.view(len(data.labels), seed=seed))
    runner = Runner(base, tuned, precision, tokens, cache=settings.cache)
    said = {name: softmax(runner.all_logits(name)) for name in ("validation", "test")}
    head = sum(parameter.numel() for parameter in tuned.view.head_parameters())
    reading = runner.prefix_seconds.get("train", 0.0)
    found = {}
    features = {name: runner.features(name) for name in data.parts}
    if all(part is not None for part in features.values()):
        vectors = {name: np.asarray(part, dtype=np.float64) for name, part in features.items()}
        found[CENTROID] = nearest_centroid(vectors, data.label_ids(data.train), len(data.labels), reading)
    found[UNTRAINED] = Baseline(said["validation"], said["test"], 0.0, 0, head * 4)
    return found


def nearest_centroid(
    vectors: Mapping[str, Floats], labels: NDArray[np.int64], classes: int, reading: float = 0.0
) -> Baseline:
    """Say the class whose training texts have the nearest mean vector, all vectors of length 1.

    Probabilities are those of equally round clouds around the means: softmax of -distance^2 / (2 s^2), s^2 the mean
    squared distance of training texts to their own centroid. A class without training texts gets nothing.

    Args:
        vectors: (N, D) of the parts "train", "validation" and "test".
        labels: (N,) classes of the training texts.
        classes: C.
        reading: seconds that the base took to read the training texts.
    """
    started = time.perf_counter()
    sizes = {name: np.linalg.norm(part, axis=1, keepdims=True) for name, part in vectors.items()}
    unit = {name: part / np.maximum(sizes[name], 1e-12) for name, part in vectors.items()}
    present = np.unique(labels)
    means = np.stack([unit["train"][labels == label].mean(axis=0) for label in present])  # (C, D)
    place = np.searchsorted(present, labels)
    spread = float(((unit["train"] - means[place]) ** 2).sum(axis=1).mean()) or 1.0

    def said(name: str) -> Floats:
        apart = (unit[name] ** 2).sum(axis=1)[:, None] + (means**2).sum(axis=1) - 2 * unit[name] @ means.T  # (N, C)
        table = np.zeros((len(unit[name]), classes))
        table[:, present] = softmax(-apart / (2 * spread))
        return table

    validation, test = said("validation"), said("test")
    seconds = reading + time.perf_counter() - started
    return Baseline(validation, test, seconds, parameters=means.size, bytes=means.size * 4)


def prompted(base: Base, data: Dataset, settings: TrainSettings) -> Baseline | None:
    """What the untuned decoder answers when it is asked; None where its folder has no language model's head."""
    from lora_clf.inference.precision import resolve_precision
    from lora_clf.inference.prompt import ask, question_of

    precision = resolve_precision(settings.precision, base.device)
    said: dict[str, Any] = {}
    for name, part in (("validation", data.validation), ("test", data.test)):
        said[name] = ask(base, part.texts, data.labels, data.positive_label, precision)
        if said[name] is None:
            return None
    before, behind, answers = question_of(data.labels, data.positive_label)
    choice: dict[str, str | float | int] = {"prompt": f"{before}TEXT{behind}", "answers": ", ".join(answers)}
    return Baseline(said["validation"], said["test"], 0.0, 0, 0, choice)
