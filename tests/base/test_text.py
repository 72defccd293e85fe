"""Normalising: ordinary texts untouched, storms shortened, the cap applied to what is left."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_clf.base.text import CAP, RUN, Side, Text, normalise
from lora_clf.errors import UsageError

ORDINARY = [
    "",
    " ",
    "Do you have  time",
    "line one\r\n\tline two\n\n",
    "I\x92m here",  # a quotation mark decoded with the wrong code page, as in the SMS collection
    "caf\u00e9 cafe\u0301 na\u00efve",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e19\u0e49\u0e33 \u0645\u0650\u0631\u064e",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
    "a" * 30_000,
]

STORMS = {
    "accents": "\u0301",
    "spaces": " ",
    "no-break spaces": "\u00a0",
    "new lines": "\n",
    "NUL": "\0",
    "controls": "\x01\x1f\x7f",
    "C1 controls": "\x80\x9f",
    "zero-width": "\u200b\u200d\ufeff",
    "fillers": "\u3164\u2800\u115f",
    "tags": "\U000e0041",
    "all of them": " \u0301\u200b\0\n",
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_pass_unchanged(text: str) -> None:
    assert normalise(text) == Text(text, False)


def test_every_message_of_the_sms_collection_passes_unchanged(shared: Path) -> None:
    file = shared / "data" / "sms_spam" / "SMSSpamCollection"
    messages = file.read_text(encoding="utf-8").split("\n")
    assert len(messages) >= 5574
    assert all(normalise(message).text is message for message in messages)


@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS.keys())
@pytest.mark.parametrize("place", ["{storm}free prize", "free {storm}prize", "free prize{storm}"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_storm_hides_nothing(storm: str, place: str, side: Side) -> None:
    text = place.format(storm=storm * (200_000 // len(storm)))
    result = normalise(text, cap=64, side=side)
    assert not result.truncated
    assert len(result.text) <= len("free prize") + RUN
    assert "".join(result.text.split()) == "freeprize"


def test_marks_per_character_are_limited() -> None:
    assert normalise("e" + "\u0301" * RUN + "f").text == "e" + "\u0301" * RUN + "f"
    assert normalise("e" + "\u0301" * (RUN + 1) + "f").text == "ef"
    assert normalise("e" + "\u0301" * 5 + " \n" + "\u0489" * 5 + "f").text == "e \nf"
    assert normalise("a" + " " * 20 + "b").text == "a" + " " * RUN + "b"
    assert normalise("a" + " " * RUN + "\u0301" * RUN + "b").text == "a" + " " * RUN + "\u0301" * RUN + "b"


def test_a_control_character_inside_a_word_does_not_split_it() -> None:
    assert normalise("f\x00r\x01e\x7fe").text == "free"


def test_surrogates() -> None:
    assert normalise("a\ud83d\ude00b").text == "a\U0001f600b"
    assert normalise("a\ud83db\ude00").text == "a\ufffdb\ufffd"
    assert normalise("\ud83d").text == "\ufffd"
    assert normalise("\ud83d\ud83d\ude00\ude00").text == "\ufffd\U0001f600\ufffd"
    pairs = "\ud83d\ude00" * 50_000  # a stride ends inside one of these pairs
    for text in (pairs, "x" + pairs):
        assert "\ufffd" not in normalise(text, cap=200_000).text


def test_the_cap_counts_normalised_characters_and_cuts_at_white_space() -> None:
    words = "free prize " * 100
    right, left = normalise(words, cap=50), normalise(words, cap=50, side="left")
    assert right == Text("free prize free prize free prize free prize free", True)
    assert left.truncated and len(left.text) <= 50 and words.endswith(left.text) and left.text[0] in "fp"
    assert left.text.split()[0] in ("free", "prize")
    assert normalise("x" * 51, cap=50) == Text("x" * 50, True)
    assert normalise("x" * 50, cap=50) == Text("x" * 50, False)
    assert normalise("word " * 10, cap=50) == Text("word " * 10, False)


@pytest.mark.parametrize("text", ["ab\ud83d\0\0\0\0\ude00c", "a \ud83d\ude00 \0\ud83d", "\ud83d\ud83d\0\ude00\ude00"])
def test_a_surrogate_pair_is_never_parted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = normalise(text)
    assert "\U0001f600" in whole.text
    for stride in (1, 2, 3, 4):
        monkeypatch.setattr("lora_clf.base.text._STRIDE", stride)
        assert normalise(text) == whole


@given(
    st.lists(st.sampled_from([*"ab \n", "\u0301", "\0", "\u200b", "\ud800", "\udc00"]), max_size=400),
    st.integers(1, 60),
    st.sampled_from(["right", "left"]),
)
@settings(max_examples=200, deadline=None)
def test_normalising_is_idempotent_capped_and_does_not_depend_on_the_strides(
    characters: list[str], cap: int, side: Side
) -> None:
    text = "".join(characters)
    whole = normalise(text)
    assert normalise(whole.text) == whole and not whole.truncated
    whole.text.encode("utf-8")
    capped = normalise(text, cap=cap, side=side)
    assert len(capped.text) <= cap and capped.truncated == (len(whole.text) > cap)
    assert whole.text.startswith(capped.text) if side == "right" else whole.text.endswith(capped.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lora_clf.base.text._STRIDE", 3)
        assert normalise(text, cap=cap, side=side) == capped


@pytest.mark.parametrize("side", ["right", "left"])
def test_ten_million_accents_take_about_a_second_and_little_memory(side: Side) -> None:
    text = "\u0301" * 10_000_000 + "free prize"
    start = time.process_time()
    assert "free prize" in normalise(text, side=side).text
    assert time.process_time() - start < 5  # of the processor: 0.6 on a free core
    tracemalloc.start()
    normalise(text[-2_000_000:], side=side)
    peak = tracemalloc.get_traced_memory()[1] - 2 * 2_000_000
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_cap_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="Cannot cap"):
        normalise("a", cap=0)
    assert CAP >= 16 * 1024
