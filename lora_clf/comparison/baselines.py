"""The plain classifiers that every strategy has to beat: majority class, TF-IDF with logistic regression."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
Rows = NDArray[np.int64]
Cut = tuple[Rows, Rows]  # the rows to learn from, those to judge by
Recipe = dict[str, Any]
Answer = Callable[[Any], NDArray[Any]]  # from features (N, words) to what is said of them
Fit = Callable[[Any, Rows, float], Answer]  # of the features of those rows, with that strength

FOLDS = 5
# scikit-learn's defaults, as most write them, and what those who know it change: log of the counts, pairs of
# words.
RECIPES: tuple[Recipe, ...] = ({}, {"sublinear_tf": True, "ngram_range": (1, 2)})
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # C, the inverse of the penalty; 1 is the default


@dataclass(frozen=True)
class Baseline:
    """What a plain classifier says of the validation and test texts, and what it cost.

    Attributes:
        validation_probabilities: (N, C), columns in the order of the dataset's labels.
        test_probabilities: (N, C), likewise.
        seconds: of everything, the choice between recipes included.
        parameters: the numbers it learnt from labels: coefficients and intercepts, or class shares.
        bytes: what it takes to store them, with the vocabulary and its weights.
        choice: the recipe that won, for the report.
    """

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
    return Baseline(validation, test, time.perf_counter() - start, parameters=shares.size, bytes=shares.nbytes)


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
    present = np.unique(labels, return_counts=True)[1]
    if len(present) < 2:  # nothing to tell apart: a regression has no answer, the majority has
        return replace(majority(dataset, seed), choice={"recipe": "one class in training"})
    cuts = cuts_of(labels, min(FOLDS, int(present.min())), seed, dataset.groups(dataset.train))
    cuts = [(learn, judge) for learn, judge in cuts if len(np.unique(labels[learn])) > 1]

    def fit(features: Any, rows: Rows, strength: float) -> Answer:
        model = logistic(features, labels[rows], strength, seed)
        return lambda unseen: shares_of(model, unseen, classes)

    def merit(answers: list[NDArray[Any]]) -> tuple[float, float]:
        judged = np.concatenate([judge for _, judge in cuts])
        order = np.argsort(judged)
        truth, table = labels[judged[order]], np.concatenate(answers)[order]
        return float((table.argmax(axis=1) == truth).mean()), -cross_entropy(truth, table)

    recipe, strength = elect(texts, cuts, fit, merit, fallback=(RECIPES[-1], 10.0))
    vectoriser, features = learn_words(recipe, texts)
    model = logistic(features, labels, strength, seed)
    validation, test = (
        shares_of(model, vectoriser.transform(part.texts), classes) if len(part) else np.zeros((0, classes))
        for part in (dataset.validation, dataset.test)
    )
    words = sum(len(word.encode()) for word in vectoriser.vocabulary_)
    arrays = (model.coef_, model.intercept_)
    return Baseline(
        validation,
        test,
        time.perf_counter() - start,
        parameters=sum(int(array.size) for array in arrays),
        bytes=words + int(vectoriser.idf_.nbytes) + sum(int(array.nbytes) for array in arrays),
        choice=choice_of(recipe, strength),
    )


def elect(
    texts: Sequence[str],
    cuts: Sequence[Cut],
    fit: Fit,
    merit: Callable[[list[NDArray[Any]]], Any],
    fallback: tuple[Recipe, float],
) -> tuple[Recipe, float]:
    """The recipe and the strength of the largest merit, the first of equals; ``fallback`` where there are no cuts.

    ``fit`` learns from the features of some of the ``texts``; ``merit`` is of what was said of the rows to judge by,
    cut by cut. Raises what `learn_words` raises.
    """
    best: Any = None
    winner = fallback
    for recipe in RECIPES if cuts else ():
        answers: dict[float, list[NDArray[Any]]] = {strength: [] for strength in STRENGTHS}
        for learn, judge in cuts:
            vectoriser, features = learn_words(recipe, [texts[number] for number in learn])
            unseen = vectoriser.transform([texts[number] for number in judge])
            for strength, found in answers.items():
                found.append(fit(features, learn, strength)(unseen))
        for strength, found in answers.items():
            mine = merit(found)
            if best is None or mine > best:
                best, winner = mine, (recipe, strength)
    return winner


def cuts_of(strata: NDArray[np.int64], folds: int, seed: int, groups: NDArray[np.int64]) -> list[Cut]:
    """The rows to learn from and those to judge by of each fold that has both; a group's rows are judged together.

    None with fewer than two folds.
    """
    if folds < 2:
        return []
    parts = [part for part in fold_parts(strata, folds, seed, groups) if 0 < len(part) < len(strata)]
    return [(np.setdiff1d(np.arange(len(strata)), judge), judge) for judge in parts]


def learn_words(recipe: Recipe, texts: Sequence[str]) -> tuple[Any, Any]:
    """Words counted and weighed as the recipe says: what does it to other texts too, and (N, words) sparse of these.

    Raises:
        DataError: no text holds a word of two letters.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectoriser = TfidfVectorizer(**recipe)
    try:
        return vectoriser, vectoriser.fit_transform(texts)
    except ValueError as error:
        raise DataError(
            f"The baseline TF-IDF found no word of two letters or more in {len(texts)} training texts; "
            "check the text column."
        ) from error


def logistic(features: Any, labels: NDArray[Any], strength: float, seed: int) -> Any:
    """scikit-learn's logistic regression on features (N, words) and labels (N,); ``strength`` is its C."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000, random_state=seed).fit(features, labels)


def shares_of(model: Any, features: Any, classes: int) -> Floats:
    """Probabilities (N, C) with a column for every class, also for those that training did not hold."""
    table = np.zeros((features.shape[0], classes))
    table[:, model.classes_] = model.predict_proba(features)
    return table


def choice_of(recipe: Recipe, strength: float) -> dict[str, str | float | int]:
    """What was chosen, for the report."""
    return {"recipe": "sublinear, words and pairs" if recipe else "words", "C": strength}
