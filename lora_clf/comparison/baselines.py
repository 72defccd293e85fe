"""The plain classifiers that every strategy has to beat: majority class, TF-IDF with logistic regression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_clf.data.split import fold_parts
from lora_clf.errors import DataError
from lora_clf.metrics.probability import cross_entropy

if TYPE_CHECKING:
    from lora_clf.data.dataset import Dataset

Floats = NDArray[np.float64]
Recipe = dict[str, Any]

FOLDS = 5
# scikit-learn's defaults, as most write them, and what those who know it change: log of the counts, pairs of
# words.
RECIPES: tuple[Recipe, ...] = ({}, {"sublinear_tf": True, "ngram_range": (1, 2)})
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # C, the inverse of the penalty; 1 is the default


@dataclass(frozen=True)
class Baseline:
    """What a plain classifier says of the validation and test texts, and what it cost.

    Attributes:
        name: ``majority`` or ``tfidf``.
        validation_probabilities: (N, C), columns in the order of the dataset's labels.
        test_probabilities: (N, C), likewise.
        seconds: of everything, the choice between recipes included.
        parameters: the numbers it learnt from labels: coefficients and intercepts, or class shares.
        bytes: what it takes to store them, with the vocabulary and its weights.
        choice: the recipe that won, for the report.
    """

    name: str
    validation_probabilities: Floats
    test_probabilities: Floats
    seconds: float
    parameters: int
    bytes: int
    choice: dict[str, str | float | int] = field(default_factory=dict)


def majority(dataset: Dataset, seed: int = 0) -> Baseline:
    """Say the most common class of the training part always, with the shares of the classes as probabilities.

    Args:
        dataset: its training labels are counted.
        seed: takes none; all baselines are called alike.
    """
    start = time.perf_counter()
    counts = np.bincount(dataset.label_ids(dataset.train), minlength=len(dataset.labels))
    shares = counts / counts.sum()
    validation, test = (np.tile(shares, (len(part), 1)) for part in (dataset.validation, dataset.test))
    return Baseline(
        "majority", validation, test, time.perf_counter() - start, parameters=shares.size, bytes=shares.nbytes
    )


def tfidf(dataset: Dataset, seed: int = 0) -> Baseline:
    """Count words, weigh them by how rare they are, and fit a logistic regression.

    Two recipes stand for election on folds of the training part, never on validation or test: scikit-learn's
    defaults, and sublinear counts of words and word pairs with the penalty chosen too. The most accurate
    wins; of equals the one of smaller cross entropy. Near copies, and rows of one group, are in one fold.
    With fewer than two examples of a class there are no folds, and the second recipe is taken with C = 10.
    With one class in training it answers that class.

    Args:
        dataset: texts and labels.
        seed: of the folds.

    Raises:
        DataError: no training text holds a word of two letters.
    """
    start = time.perf_counter()
    texts, labels = dataset.train.texts, dataset.label_ids(dataset.train)
    classes = len(dataset.labels)
    if len(np.unique(labels)) < 2:  # nothing to tell apart: a regression has no answer, the majority has
        return replace(majority(dataset, seed), name="tfidf", choice={"recipe": "one class in training"})
    recipe, strength = _elect(dataset, labels, classes, seed)
    vectoriser = vectoriser_of(recipe)
    features = learn_words(vectoriser, texts)
    model = _fit(features, labels, strength, seed)
    validation, test = (
        _probabilities(model, vectoriser, part.texts, classes) for part in (dataset.validation, dataset.test)
    )
    words = sum(len(word.encode()) for word in vectoriser.vocabulary_)
    arrays = (model.coef_, model.intercept_)
    return Baseline(
        "tfidf",
        validation,
        test,
        time.perf_counter() - start,
        parameters=sum(int(array.size) for array in arrays),
        bytes=words + int(vectoriser.idf_.nbytes) + sum(int(array.nbytes) for array in arrays),
        choice={
            "recipe": "sublinear, words and pairs" if recipe else "words",
            "C": strength,
        },
    )


def _elect(dataset: Dataset, labels: NDArray[np.int64], classes: int, seed: int) -> tuple[Recipe, float]:
    """The recipe and the C that do best on folds of the training part."""
    texts = dataset.train.texts
    present = np.bincount(labels, minlength=classes)
    folds = min(FOLDS, int(present[present > 0].min()))
    cuts = [] if folds < 2 else cuts_of(labels, folds, seed, dataset.groups(dataset.train))
    cuts = [(learn, judge) for learn, judge in cuts if len(np.unique(labels[learn])) > 1]
    if not cuts:
        return RECIPES[-1], 10.0
    judged = np.sort(np.concatenate([judge for _, judge in cuts]))
    best: tuple[float, float] | None = None
    winner = (RECIPES[-1], 10.0)
    for recipe in RECIPES:
        foretold = {strength: np.zeros((len(labels), classes)) for strength in STRENGTHS}
        for learn, judge in cuts:
            vectoriser = vectoriser_of(recipe)
            features = learn_words(vectoriser, [texts[number] for number in learn])
            unseen = [texts[number] for number in judge]
            for strength, table in foretold.items():
                model = _fit(features, labels[learn], strength, seed)
                table[judge] = _probabilities(model, vectoriser, unseen, classes)
        for strength, table in foretold.items():
            right = table[judged].argmax(axis=1) == labels[judged]
            merit = float(right.mean()), -cross_entropy(labels[judged], table[judged])
            if best is None or merit > best:
                best, winner = merit, (recipe, strength)
    return winner


def cuts_of(
    strata: NDArray[np.int64], folds: int, seed: int, groups: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The rows to learn from and those to judge by of each fold that has both; a group's rows are judged together."""
    parts = [part for part in fold_parts(strata, folds, seed, groups) if 0 < len(part) < len(strata)]
    return [(np.setdiff1d(np.arange(len(strata)), judge), judge) for judge in parts]


def vectoriser_of(recipe: Recipe) -> Any:
    """Words counted and weighed as the recipe says; nothing is learnt yet."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**recipe)


def learn_words(vectoriser: Any, texts: Sequence[str]) -> Any:
    """TF-IDF features of the training texts, (N, words) sparse."""
    try:
        return vectoriser.fit_transform(texts)
    except ValueError as error:
        raise DataError(
            f"The baseline TF-IDF found no word of two letters or more in {len(texts)} training texts; "
            "check the text column."
        ) from error


def _fit(features: Any, labels: NDArray[np.int64], strength: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000, random_state=seed).fit(features, labels)


def _probabilities(model: Any, vectoriser: Any, texts: Sequence[str], classes: int) -> Floats:
    """(N, C) with a column for every class, also for those that training did not hold."""
    table = np.zeros((len(texts), classes))
    if len(texts):
        table[:, model.classes_] = model.predict_proba(vectoriser.transform(texts))
    return table
