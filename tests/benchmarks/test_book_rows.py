"""The questions of the book's table, and what its published differences show."""

from __future__ import annotations

from types import SimpleNamespace

import book_noise
import book_rows
import pytest
from scipy.stats import binomtest

from lora_clf.errors import UsageError

PUBLISHED = {row.name: row.published for row in book_rows.ROWS if row.published}


def test_every_published_figure_is_a_share_of_its_part() -> None:
    assert list(PUBLISHED) == [str(number) for number in range(1, 20)]
    assert [row.name for row in book_rows.ROWS[19:]] == list("ABCDEFG")
    for train, _, test in PUBLISHED.values():
        assert 0 <= book_noise.errors_of(test) <= 84
        assert book_noise.errors_of(train, 1040) >= 0  # 130 batches of 8
    odd = []
    for name, (_, validation, _) in PUBLISHED.items():
        try:
            book_noise.errors_of(validation, 149)
        except ValueError:
            odd.append(name)
    assert odd == ["8"]  # 99.81 is that row's training figure, printed twice in the source
    assert book_noise.errors_of(95.00) == 15 and book_noise.errors_of(93.67) == 19


def test_equal_computations_are_asked_once() -> None:
    decoder, encoder = (
        {row.name: same.name for row in book_rows.ROWS if (same := book_rows.twin(row, causal))}
        for causal in (True, False)
    )
    assert encoder == {"18": "1"}
    # A decoder never sees the padding behind its text.
    assert decoder == {"18": "1", "B": "16"}


def test_padding_that_nothing_can_see_is_not_computed() -> None:
    computed = {
        causal: [row.name for row in book_rows.ROWS[:-1] if row.computation(causal)["padding"] == "batch"]
        for causal in (True, False)
    }
    # Row A is padded to the batch and sees it; on an encoder rows 2 and 16 see the padding to 120 too.
    assert computed[True] == ["2", "14", "15", "16", *"ABCDEF"]
    assert computed[False] == ["14", "15", *"ABCDEF"]
    seen = book_rows.BY_NAME["A"].computation(True)
    assert seen["slots"] and not seen["hidden"]


def test_names_of_rows_and_sizes() -> None:
    assert len(book_rows.rows_named("all")) == 26 and len(book_rows.rows_named("book")) == 19
    assert [row.name for row in book_rows.rows_named("5, a,5,1")] == ["5", "A", "1"]
    with pytest.raises(UsageError, match="Z"):
        book_rows.rows_named("1,Z")
    assert book_rows.sizes_named([], "gpt2")["xl"] == "gpt2-xl"
    assert book_rows.sizes_named(["medium=some/where"], "minilm") == {"small": "minilm", "medium": "some/where"}
    for odd in ("huge=x", "medium=", "medium"):
        with pytest.raises(UsageError, match="SIZE=BASE"):
            book_rows.sizes_named([odd], "minilm")


def test_another_mask_is_refused_where_attention_has_a_window() -> None:
    assert book_rows.windowed(SimpleNamespace(layer_types=["full_attention", "sliding_attention"], sliding_window=4))
    assert not book_rows.windowed(SimpleNamespace(layer_types=["full_attention"], sliding_window=4))
    assert book_rows.windowed(SimpleNamespace(sliding_window=4)) and not book_rows.windowed(SimpleNamespace())


@pytest.mark.parametrize(("one", "other"), [(15, 75), (15, 5), (15, 19), (15, 15), (3, 0), (250, 290)])
def test_the_best_and_worst_case_are_mcnemars_over_all_pairs_that_the_errors_allow(one: int, other: int) -> None:
    possible = []
    for both in range(max(0, one + other - 300), min(one, other) + 1):  # messages wrong in both
        pairs = one + other - 2 * both
        possible.append(binomtest(one - both, pairs).pvalue if pairs else 1.0)
    best, worst = book_noise.cases(one, other)
    assert best == pytest.approx(min(possible)) and worst == pytest.approx(max(possible))


def test_corrected_values_follow_holm() -> None:
    assert book_noise.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert book_noise.holm([0.5, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert book_noise.holm([]) == []


def test_which_published_differences_are_beyond_noise() -> None:
    found = book_noise.verdicts({name: published[2] for name, published in PUBLISHED.items()})
    assert len(found) == 18
    words = {word: [name for name in found if found[name].word == word] for word in ("beyond", "open", "within")}
    # 10 points and more are beyond; 1.7 points are 5 messages, which alone could all fall one way by chance.
    assert words["beyond"] == ["2", "3", "6", "13"]
    assert words["open"] == ["4", "8", "9", "12", "14", "15", "16"]
    assert words["within"] == ["5", "7", "10", "11", "17", "18", "19"]
    assert found["4"].points == pytest.approx(3.33) and found["4"].best < 0.05 < found["4"].worst
    with pytest.raises(ValueError, match="no share"):
        book_noise.errors_of(95.1)
