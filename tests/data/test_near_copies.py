from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_clf.data import near_copies
from lora_clf.data.corpus import Part
from lora_clf.data.leaks import find_leaks
from lora_clf.data.near_copies import GRAM, _found, components, fold, join_groups, nearest_and_method
from lora_clf.errors import UsageError

ALIKE = st.lists(st.text(st.sampled_from("abAB \t"), max_size=14), max_size=12)


def similarity(first: str, second: str) -> float:
    """How alike two texts are, 0 to 1: the definition in five lines."""

    def jaccard(a: str, b: str) -> float:
        one, two = ({t[i : i + GRAM] for i in range(max(1, len(t) - GRAM + 1))} for t in (a, b))
        return len(one & two) / len(one | two)

    return max(jaccard(first, second), jaccard(fold(first), fold(second)))


def similar_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """All pairs that are found, each with the larger of its similarities as written and folded."""
    found: dict[tuple[int, int], float] = {}
    for piece in _found(texts, threshold):
        for left, right, value in zip(*(column.tolist() for column in piece), strict=True):
            found[left, right] = max(value, found.get((left, right), 0.0))
    return found


def brute_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    found = {}
    for right in range(len(texts)):
        for left in range(right):
            value = similarity(texts[left], texts[right])
            if value >= threshold:
                found[left, right] = value
    return found


def brute_components(texts: list[str], threshold: float) -> list[int]:
    group = list(range(len(texts)))
    for left, right in brute_pairs(texts, threshold):
        low, high = sorted((group[left], group[right]))
        group = [low if own == high else own for own in group]
    return group


def test_the_definition() -> None:
    assert similarity("abcdef", "abcdef") == 1.0
    assert similarity("abcdef", "abcdeg") == 1 / 3
    assert similarity("abc", "abc") == 1.0 and similarity("abc", "abd") == 0.0
    assert similarity("FREE  entry now", "free entry NOW ") == 1.0
    assert similarity("", "a") == 0.0


@settings(max_examples=150, deadline=None)
@given(ALIKE, st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0]))
def test_pairs_and_components_are_those_of_brute_force(texts: list[str], threshold: float) -> None:
    assert similar_pairs(texts, threshold) == brute_pairs(texts, threshold)
    assert components(texts, threshold).tolist() == brute_components(texts, threshold)
    half = len(texts) // 2
    likest = [
        max((value for other in texts[half:] if (value := similarity(text, other)) >= threshold), default=0.0)
        for text in texts[:half]
    ]
    assert nearest_and_method(texts[:half], texts[half:], threshold)[0].tolist() == likest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_script(texts: list[str]) -> None:
    assert components(texts, 0.5).tolist() == brute_components(texts, 0.5)


def test_what_short_texts_are_filled_up_with_is_in_no_text() -> None:
    texts = ["", "\x00", "ab", "ab\x00\x00\x00", "ab\x00\x01", "\x01"]
    assert components(texts, 0.5).tolist() == brute_components(texts, 0.5) == list(range(6))


@settings(max_examples=50, deadline=None)
@given(ALIKE, st.integers(1, 60))
def test_texts_may_be_gone_through_some_at_a_time(texts: list[str], characters: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = similar_pairs(texts, 0.3)
        patch.setattr("lora_clf.data.near_copies.CHARACTERS", characters)
        some = similar_pairs(texts, 0.3)
    assert whole == some


def test_an_alphabet_too_large_to_pack() -> None:
    draw = random.Random(1)
    letters = [chr(0x4E00 + place) for place in range(9000)]
    texts = ["".join(draw.choices(letters, k=30)) for _ in range(1000)]
    texts += [text[:-1] + draw.choice(letters) for text in texts[:20]]
    groups = components(texts, 0.7)
    assert groups[1000:].tolist() == list(range(20))
    assert len(set(groups.tolist())) == 1000


def test_a_random_sample_of_the_real_file_by_brute_force(sms_texts: list[str]) -> None:
    draw = random.Random(7)
    sample = draw.sample(sms_texts, 220)
    # Ones that do have copies, else a sample of this size shows none.
    groups = components(sms_texts)
    several = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
    sample += [sms_texts[place] for place in draw.sample(several.tolist(), 120)]
    grams = [
        [{t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in (text, " ".join(text.casefold().split()))]
        for text in sample
    ]
    for threshold in (0.5, 0.7):
        expected = {
            (left, right)
            for right in range(len(sample))
            for left in range(right)
            if any(len(a & b) >= threshold * len(a | b) - 1e-12 for a, b in zip(grams[left], grams[right], strict=True))
        }
        assert set(similar_pairs(sample, threshold)) == expected
        assert len(expected) > 20


def test_the_real_file(sms_texts: list[str]) -> None:
    assert len(sms_texts) - len(set(sms_texts)) == 403
    assert len(set(components(sms_texts, 0.7).tolist())) == 4995
    assert len(set(components(sms_texts, 0.5).tolist())) == 4881


def test_minhash_finds_the_same_groups(sms_texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sms_texts[:2500]
    groups, exact = components(texts, 0.7), similar_pairs(texts, 0.5)
    monkeypatch.setattr(near_copies, "EXACT_ROWS", 0)
    assert components(texts, 0.7).tolist() == groups.tolist()
    proposed = similar_pairs(texts, 0.5)
    assert len(set(exact) - set(proposed)) <= 0.02 * len(exact)
    assert len(proposed) <= len(exact)


def test_minhash_with_one_bucket_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "EXACT_ROWS", 0)
    texts = [f"Your parcel number {place:05d} waits at the depot, please collect it today" for place in range(150)]
    assert set(components(texts, 0.7).tolist()) == {0}


def test_a_threshold_that_all_texts_reach_is_refused() -> None:
    with pytest.raises(UsageError, match=r"threshold is 0\.0"):
        components(["a", "b"], 0.0)


def test_the_method_that_was_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["win a prize now", "win a prize now!", "lunch at home"]
    parts = {"test": Part(("win a prize now?",), ("spam",), (1,))}
    assert nearest_and_method(texts[:1], texts[1:])[1] == find_leaks(texts, parts).method == "exact"
    monkeypatch.setattr(near_copies, "EXACT_ROWS", 3)
    assert nearest_and_method(texts[:1], texts[1:])[1] == "exact"
    for name in ("EXACT_ROWS", "WORK_LIMIT"):  # too many rows, too much work
        with monkeypatch.context() as patch:
            patch.setattr(near_copies, name, 2)
            assert nearest_and_method(texts[:1], texts[1:])[1] == find_leaks(texts, parts).method == "minhash"
    assert find_leaks([], {}).method == "exact"


def test_groups_are_joined() -> None:
    copies, speakers = np.array([0, 0, 2, 3, 4]), np.array([7, 8, 8, 9, 9])
    assert join_groups(copies, speakers).tolist() == [0, 0, 0, 3, 3]
    assert join_groups(speakers).tolist() == [0, 1, 1, 3, 3]


def test_nothing_and_one() -> None:
    assert components([]).tolist() == []
    assert components(["a"]).tolist() == [0]
    assert nearest_and_method([], ["a"])[0].tolist() == []
    assert nearest_and_method(["a"], [])[0].tolist() == [0.0]
    assert not similar_pairs(["a"], 0.7)
