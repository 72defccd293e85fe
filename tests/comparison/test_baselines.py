from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from lora_clf.comparison import baselines
from lora_clf.comparison.baselines import cuts_of, majority, tfidf
from lora_clf.errors import DataError


@dataclass(frozen=True, eq=False)
class Part:
    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Dataset:
    """As much of a dataset as a baseline looks at."""

    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]

    def label_ids(self, part: Part) -> np.ndarray:
        return np.array([self.labels.index(label) for label in part.labels], dtype=np.int64)

    def groups(self, part: Part) -> np.ndarray:
        return np.arange(len(part))


FILLER = ["the", "a", "of", "to", "and", "in", "that", "it", "is", "was", "for", "on", "with", "they"]
WORDS = {
    "animals": ["cat", "dog", "horse"],
    "food": ["bread", "soup", "cheese"],
    "tools": ["saw", "hammer", "nail"],
}


def part(rows: int, labels: tuple[str, ...], seed: int) -> Part:
    random = np.random.default_rng(seed)
    shares = [0.25, *[0.75 / (len(labels) - 1)] * (len(labels) - 1)]  # the first class is the rarest
    chosen = [str(label) for label in random.choice(labels, rows, p=shares)]
    texts = [" ".join([*random.choice(FILLER, 6), str(random.choice(WORDS[label]))]) for label in chosen]
    return Part(tuple(texts), tuple(chosen))


def dataset(labels: tuple[str, ...], rows: int = 120) -> Dataset:
    return Dataset(part(rows, labels, 0), part(30, labels, 1), part(40, labels, 2), labels)


@pytest.fixture(params=[("animals", "food"), ("animals", "food", "tools")], ids=["binary", "three classes"])
def data(request: pytest.FixtureRequest) -> Dataset:
    return dataset(request.param)


@pytest.mark.parametrize("baseline", [majority, tfidf])
def test_probabilities_in_the_order_of_the_labels(baseline, data: Dataset) -> None:
    found = baseline(data, 0)
    for table, of in (
        (found.validation_probabilities, data.validation),
        (found.test_probabilities, data.test),
    ):
        assert table.shape == (len(of), len(data.labels)) and table.dtype == np.float64
        assert np.allclose(table.sum(axis=1), 1)
    assert found.seconds > 0 and found.parameters > 0 and found.bytes > 0


def test_majority_says_the_most_common_class(data: Dataset) -> None:
    common = max(data.labels, key=data.train.labels.count)
    found = majority(data)
    assert {data.labels[number] for number in found.test_probabilities.argmax(axis=1)} == {common}
    share = data.train.labels.count(common) / len(data.train)
    assert found.test_probabilities[0, data.labels.index(common)] == pytest.approx(share)


def test_tfidf_finds_the_telling_words(data: Dataset) -> None:
    found = tfidf(data)
    assert (found.test_probabilities.argmax(axis=1) == data.label_ids(data.test)).mean() >= 0.95
    assert set(found.choice) == {"recipe", "C"}


def test_parameters_are_coefficients_and_intercepts(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "RECIPES", ({},))
    monkeypatch.setattr(baselines, "STRENGTHS", (1.0,))
    found = tfidf(data)
    words = {word for text in data.train.texts for word in text.split() if len(word) > 1}
    rows = 1 if len(data.labels) == 2 else len(data.labels)
    assert found.parameters == rows * (len(words) + 1)
    assert found.bytes == sum(map(len, words)) + 8 * (len(words) + found.parameters)
    assert found.choice == {"recipe": "words", "C": 1.0}


def test_the_choice_sees_training_texts_only(data: Dataset) -> None:
    """Other validation and test texts: the same choice and the same model."""
    other = dataclasses.replace(data, validation=data.test, test=data.validation)
    first, second = tfidf(data, 3), tfidf(other, 3)
    assert first.choice == second.choice and first.parameters == second.parameters
    assert np.array_equal(first.test_probabilities, second.validation_probabilities)


def test_the_same_seed_gives_the_same_probabilities(data: Dataset) -> None:
    assert np.array_equal(tfidf(data, 1).test_probabilities, tfidf(data, 1).test_probabilities)


def test_the_better_recipe_is_elected() -> None:
    """Only the order of two words tells these classes apart: pairs are needed."""
    random = np.random.default_rng(0)

    def rows(count: int) -> Part:
        labels = tuple(str(label) for label in random.choice(["animals", "food"], count))
        core = {"animals": "dog bites man", "food": "man bites dog"}
        texts = tuple(f"{random.choice(FILLER)} {core[label]} {random.choice(FILLER)}" for label in labels)
        return Part(texts, labels)

    data = Dataset(rows(80), rows(20), rows(40), ("animals", "food"))
    found = tfidf(data)
    assert found.choice["recipe"] == "sublinear, words and pairs"
    assert (found.test_probabilities.argmax(axis=1) == data.label_ids(data.test)).all()


def test_a_class_that_training_lacks_gets_nothing() -> None:
    data = dataset(("animals", "food"))
    wider = dataclasses.replace(data, labels=("aardvarks", "animals", "food"))
    found = tfidf(wider)
    assert found.test_probabilities.shape == (40, 3) and not found.test_probabilities[:, 0].any()
    assert not majority(wider).test_probabilities[:, 0].any()


def test_a_single_example_of_a_class_leaves_no_folds() -> None:
    data = dataset(("animals", "food"))
    few = Part((*data.train.texts[:20], "the nail"), (*data.train.labels[:20], "tools"))
    found = tfidf(dataclasses.replace(data, train=few, labels=("animals", "food", "tools")))
    assert found.choice["C"] == 10.0


def test_one_class_in_training_is_answered_always() -> None:
    data = dataset(("animals", "food"))
    one = Part(data.train.texts[:5], ("food",) * 5)
    found = tfidf(dataclasses.replace(data, train=one))
    assert found.choice and (found.test_probabilities == [0.0, 1.0]).all()


def test_texts_without_words_are_a_clear_error() -> None:
    data = dataset(("animals", "food"))
    silent = Part(("? !",) * 20, ("animals", "food") * 10)
    with pytest.raises(DataError, match="no word of two letters or more in 16 training texts"):
        tfidf(dataclasses.replace(data, train=silent))


def test_copies_are_judged_by_none_that_learned_them() -> None:
    groups = np.repeat(np.arange(30), 2)
    cuts = cuts_of(np.arange(60) % 2, 5, 0, groups)
    assert cuts_of(np.arange(60) % 3, 5, 0, np.zeros(60, dtype=np.int64)) == []  # of one group nothing is left to learn
    assert len(cuts) == 5 and sorted(np.concatenate([judge for _, judge in cuts])) == list(range(60))
    for learn, judge in cuts:
        assert len(learn) + len(judge) == 60 and not set(groups[learn]) & set(groups[judge])


def test_a_fold_that_leaves_one_class_to_learn_judges_nothing() -> None:
    class Speakers(Dataset):
        def groups(self, part: Part) -> np.ndarray:
            return self.label_ids(part)  # a speaker for each class

    made = dataset(("animals", "food"))
    found = tfidf(Speakers(made.train, made.validation, made.test, made.labels))
    assert found.choice == {"recipe": "sublinear, words and pairs", "C": 10.0}
