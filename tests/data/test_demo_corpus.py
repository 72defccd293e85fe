"""Checks of the embedded demo corpus: its shape, its labels and how hard it is for shallow methods."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

CSV = resources.files("lora_clf.data").joinpath("demo.csv")
ROWS = 680
COUNTS = {("ham", 0): 313, ("ham", 1): 79, ("spam", 0): 223, ("spam", 1): 65}
MAX_JACCARD = 0.5


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    """The corpus, every cell as the string that stands in the file."""
    text = CSV.read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def is_spam(corpus: pd.DataFrame) -> np.ndarray:
    """1 for spam, 0 for ham."""
    return (corpus["label"] == "spam").to_numpy().astype(int)


def five_grams(text: str) -> frozenset[str]:
    """The character 5-grams of the lower-cased text with white space collapsed."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return frozenset(text[i : i + 5] for i in range(len(text) - 4)) or frozenset({text})


def near_duplicates(texts: list[str], limit: float) -> Iterator[tuple[float, str, str]]:
    """Pairs of texts whose 5-gram sets have a Jaccard similarity above the limit."""
    grams = [five_grams(text) for text in texts]
    for i, left in enumerate(grams):
        for j in range(i):
            right = grams[j]
            shorter, longer = sorted((len(left), len(right)))
            if shorter <= limit * longer:
                continue  # the similarity is at most shorter / longer
            shared = len(left & right)
            similarity = shared / (shorter + longer - shared)
            if similarity > limit:
                yield similarity, texts[i], texts[j]


def best_one_word_rule(texts: list[str], is_spam: np.ndarray, token_pattern: str) -> tuple[float, str]:
    """Best accuracy of "contains word w" as a rule for either class, chosen and scored on all texts."""
    vectorizer = CountVectorizer(binary=True, token_pattern=token_pattern)
    contains = vectorizer.fit_transform(texts).toarray()
    accuracy = (contains == is_spam[:, None]).mean(axis=0)
    accuracy = np.maximum(accuracy, 1 - accuracy)
    best = int(accuracy.argmax())
    return float(accuracy[best]), str(vectorizer.get_feature_names_out()[best])


def test_file_is_plain_csv() -> None:
    raw = CSV.read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    text = raw.decode("utf-8")
    rewritten = io.StringIO()
    pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).to_csv(rewritten, index=False, lineterminator="\n")
    assert rewritten.getvalue() == text


def test_size_and_columns(corpus: pd.DataFrame) -> None:
    assert list(corpus.columns) == ["text", "label", "hard"]
    assert len(corpus) >= 600
    assert len(corpus) == ROWS
    assert set(corpus["label"]) == {"ham", "spam"}
    assert set(corpus["hard"]) == {"0", "1"}
    counted = corpus.groupby([corpus["label"], corpus["hard"].astype(int)]).size().to_dict()
    assert counted == COUNTS


def test_class_and_hard_shares(corpus: pd.DataFrame) -> None:
    assert 0.55 <= (corpus["label"] == "ham").mean() <= 0.61
    for label in ("ham", "spam"):
        share = (corpus.loc[corpus["label"] == label, "hard"] == "1").mean()
        assert 0.18 <= share <= 0.25, label


def test_texts_are_clean(corpus: pd.DataFrame) -> None:
    texts = corpus["text"]
    assert (texts.str.strip() == texts).all()
    assert texts.str.len().min() >= 12
    assert not texts.str.contains(r"[\n\r\t]", regex=True).any()


def test_no_live_domains(corpus: pd.DataFrame) -> None:
    hosts = corpus["text"].str.extractall(r"\b((?:[a-z0-9-]+\.)+[a-z]{2,})(?=[/\s,.:;)]|$)")[0]
    assert len(hosts) > 20
    assert [host for host in hosts if not host.endswith(".example")] == []


def test_no_duplicates(corpus: pd.DataFrame) -> None:
    squeezed = corpus["text"].str.lower().str.replace(r"\W+", " ", regex=True).str.strip()
    assert not squeezed.duplicated().any()
    assert list(near_duplicates(corpus["text"].tolist(), MAX_JACCARD)) == []


@pytest.mark.parametrize(
    "options", [{}, {"ngram_range": (1, 2), "sublinear_tf": True}], ids=["default", "bigrams-sublinear"]
)
def test_tfidf_is_good_but_not_enough(corpus: pd.DataFrame, is_spam: np.ndarray, options: dict[str, object]) -> None:
    model = make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(model, corpus["text"], is_spam, cv=folds).mean()
    print(f"TF-IDF {options}: {accuracy:.4f}")
    assert 0.85 <= accuracy <= 0.95


@pytest.mark.parametrize("token_pattern", [r"(?u)\w+", r"\S+"], ids=["words", "blank-separated"])
def test_no_giveaway_word(corpus: pd.DataFrame, is_spam: np.ndarray, token_pattern: str) -> None:
    accuracy, word = best_one_word_rule(corpus["text"].tolist(), is_spam, token_pattern)
    print(f"one-word rule {word!r}: {accuracy:.4f}")
    assert accuracy < 0.80
