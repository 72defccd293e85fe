"""Long texts are read whole: in windows that hold everything, each with its place in the text as it came."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_clf.base.documents import Documents
from lora_clf.base.reading import AGGREGATES, LONG, PLAIN, Reading, read
from lora_clf.base.tokenizer import Tokenizer, load_tokenizer
from lora_clf.base.windows import windows
from lora_clf.errors import UsageError
from tests.bases import tiny_base
from tests.data.test_transcript import MEETING

CHUNK = Reading("chunk", overlap=6)
LONG_TEXT = " ".join(f"Item {number} of this list is here." for number in range(40))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A word-piece tokenizer with [CLS] and [SEP]; what it does not know is spelled in letters."""
    folder = tmp_path_factory.mktemp("words")
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *[f"##{letter}" for letter in letters],
                  "item", "of", "this", "list", "is", "here"]  # fmt: skip
    special = [
        {"id": place, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for place, token in enumerate(vocabulary[:4])
    ]  # fmt: skip
    form = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {token: id for id, token in enumerate(vocabulary)}},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(form))
    return load_tokenizer(folder, {"model_type": "bert", "vocab_size": len(vocabulary), "pad_token_id": 0})


def documents(tokenizer: Tokenizer, texts: list[str], length: int = 24, reading: Reading = CHUNK) -> Documents:
    found = read(tokenizer, texts, length, reading=reading)
    assert isinstance(found, Documents)
    return found


def test_windows_hold_the_whole_text_between_special_tokens(words: Tokenizer) -> None:
    found = documents(words, ["Item 1 is here.", LONG_TEXT, ""])
    assert found.texts == 3 and found.chunks[0] == found.chunks[2] == 1 and found.chunks[1] > 10
    assert found.lengths.max() <= 24 and not found.truncated.any() and not found.cut.any()
    assert all(row[0] == 2 and row[-1] == 3 for row in found.ids)
    pieces = [LONG_TEXT[start:end] for start, end in found.spans[1:-1]]
    assert all(piece.rstrip().endswith(".") for piece in pieces)  # cut at the ends of sentences
    covered = np.zeros(len(LONG_TEXT), dtype=int)
    for start, end in found.spans[1:-1]:
        covered[start:end] += 1
    assert covered.min() == 1 and covered.max() <= 2
    assert found.text_lengths.tolist() == [len(found.ids[0]), found.lengths[1:-1].sum(), 2]
    assert found.owners.tolist() == [0, *[1] * int(found.chunks[1]), 2]
    assert found.rows_of(np.array([2, 0])).tolist() == [len(found) - 1, 0]


def test_neighbours_share_whole_sentences_up_to_the_overlap(words: Tokenizer) -> None:
    text = " ".join(f"Item {number}." for number in range(9)) + " This is the list of this item here of this list."
    none, some = documents(words, [text], 14, Reading("chunk", overlap=0)), documents(words, [text], 14)
    assert all(a.end == b.start for a, b in zip(none.spans, none.spans[1:], strict=False)) and len(none) > 2
    overlaps = [text[b.start : a.end] for a, b in zip(some.spans, some.spans[1:], strict=False)]
    assert any(overlaps) and 3 <= max(words.count(overlaps)) <= 6
    assert all(text[b.start - 1] == " " for b in some.spans[1:])  # of the long one at the end words are shared


def test_what_has_no_sentences_is_cut_at_words_and_then_anywhere(words: Tokenizer) -> None:
    endless = "item " * 100
    found = documents(words, [endless], 12, Reading("chunk", overlap=0))
    assert "".join(endless[start:end] for start, end in found.spans) == endless
    assert all(endless[end - 1] == " " for _, end in found.spans)
    assert found.lengths.max() == 12
    word = "x" * 90  # known to the vocabulary only letter by letter
    spans = documents(words, [word], 12, Reading("chunk", overlap=0)).spans
    assert "".join(word[start:end] for start, end in spans) == word and len(spans) >= 9


def test_texts_that_spell_special_tokens_stay_text(words: Tokenizer) -> None:
    found = documents(words, ["[SEP] [CLS] item. " * 30], 24)
    assert len(found) > 3
    assert all(not {2, 3} & set(row[1:-1].tolist()) for row in found.ids)


STORM = "\u0301" * 100


@pytest.mark.parametrize("reading", [CHUNK, Reading("hierarchical", overlap=6), Reading("chunk", segment="sentences")])
@pytest.mark.parametrize("body", ["Item 1 is here.", LONG_TEXT, f"Item [SEP] is {STORM} here. " + LONG_TEXT])
@pytest.mark.parametrize(
    ("front", "behind"),
    [("[SEP]", ""), ("", "[CLS]"), ("<|endoftext|>" * 40, ""), (f"{STORM} [SEP] <|im_start|>\n", f" [PAD]{STORM}"),
     (f"{STORM} ", STORM), ("\x00\x01", "\x07")],
)  # fmt: skip
def test_the_ends_of_a_long_text_are_those_of_a_short_one(
    words: Tokenizer, reading: Reading, body: str, front: str, behind: str
) -> None:
    """Special tokens and storms in front of or behind all of it, before it is cut into windows."""
    text = front + body + behind
    plain, found = documents(words, [body], reading=reading), documents(words, [text], reading=reading)
    short = words.encode([text], 4_000)
    spelt = any(letter in front + behind for letter in "[<")
    assert len(found) == len(plain) and found.cut.tolist() == short.truncated.tolist() == [spelt]
    for ours, theirs in zip(found.ids, plain.ids, strict=True):
        assert ours.tolist() == theirs.tolist()
    inside = [text[start:end] for start, end in found.spans]
    assert inside[0].lstrip().startswith("Item") and inside[-1].rstrip(f"{STORM}\x07").endswith("here.")
    assert all(0 <= start <= end <= len(text) for start, end in found.spans)


def test_special_tokens_inside_a_long_text_stay_wherever_a_window_ends(words: Tokenizer) -> None:
    text = "Item " + "[SEP] [CLS] item. " * 30 + "here"
    found = documents(words, [text, "[SEP]", "[SEP] [CLS]" * 20], 24, Reading("chunk", overlap=0))
    mine = [row[1:-1].tolist() for row in found.ids]
    assert [id for row in mine[: found.first[1]] for id in row] == words._backend.bodies([text])[0]
    assert found.cut.tolist() == [False] * 3 and found.chunks[1] == 1 and found.chunks[2] > 1


def test_places_are_those_of_the_text_as_it_came(words: Tokenizer) -> None:
    text = "\x00\x01Item one here.\u0301" + "\u200b" * 50 + " Item two is here.\x07 " + LONG_TEXT
    found = documents(words, [text])
    assert found.spans[0].start == 2 and found.spans[-1].end == len(text)
    assert text[found.spans[-1].start :].startswith("Item")
    assert [text[s:e].count("\x00") for s, e in found.spans] == [0] * len(found)


def test_segments_are_chunks_and_cleaning_comes_after_cutting() -> None:
    tokenizer = tiny_base("bert").tokenizer
    for segment, count in (("turns", 5), ("minutes", 3), ("sentences", 11), ("windows", 1)):
        found = documents(tokenizer, [MEETING], 400, Reading("chunk", segment=segment))
        assert found.texts == 1 and len(found) == count, segment
    cleaned = documents(tokenizer, [MEETING], 400, Reading("chunk", segment="turns", clean="transcript"))
    said = [tokenizer.decode(row.tolist()) for row in cleaned.ids]
    assert len(said) == 5 and said[0] == "Speaker 1: hello. So this is the thing.\n"
    assert [text.split(":")[0] for text in said] == ["Speaker 1", "Speaker 2", "Speaker 1", "Speaker 2", "Speaker 3"]
    start, end = cleaned.spans[0]
    assert MEETING[start:end].startswith("JOHN SMITH: Um, hello.") and end == MEETING.index("00:00:40")
    cut = read(tokenizer, [MEETING], 30, reading=Reading(clean="transcript"))
    assert not isinstance(cut, Documents) and tokenizer.decode(cut.ids[0].tolist()) == "Speaker 1: hello. So this is t"
    only = documents(tokenizer, ["Um. Uh."], 400, Reading("chunk", segment="sentences", clean="transcript"))
    assert len(only) == 1 and only.texts == 1  # nothing is left of it, and it gets an answer


PIECES = [*"ab. !?\n,é1", "item ", "um ", "Ann: ", "\u0301", "\x00", "\u200b", "x" * 40]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=80).map("".join), max_size=3)


@given(TEXTS, st.integers(5, 30), st.sampled_from(["windows", "turns", "sentences"]), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_no_character_is_dropped_whatever_the_text(
    words: Tokenizer, texts: list[str], length: int, segment: str, overlap: int
) -> None:
    found = documents(words, texts, length, Reading("chunk", segment=segment, overlap=overlap if length > 12 else 0))
    assert found.texts == len(texts) and not found.truncated.any()
    assert found.lengths.max(initial=0) <= length
    for number, text in enumerate(texts):
        seen = np.zeros(len(text), dtype=bool)
        for start, end in found.spans[found.first[number] : found.first[number + 1]]:
            assert 0 <= start <= end <= len(text)
            seen[start:end] = True
        missed = "".join(letter for letter, there in zip(text, seen, strict=True) if not there)
        assert not any(letter.isalnum() for letter in missed)


def test_windows_need_no_tokenizer() -> None:
    def count(texts: Any) -> list[int]:
        return [len(text.split()) for text in texts]

    found = windows(["a b. C d. E f g h i j.", "short"], count, room=4, characters=100, overlap=2)
    assert found == [[(0, 10), (5, 14), (10, 18), (14, 22)], [(0, 5)]]
    assert all(len("a b. C d. E f g h i j."[s:e].split()) <= 4 for s, e in found[0])


def test_settings_that_do_nothing_are_refused() -> None:
    assert LONG == ("truncate", "chunk", "hierarchical") and len(AGGREGATES) == 4
    for wrong, said in (
        ({"long": "chunks"}, "Did you mean 'chunk'"),
        ({"segment": "turns"}, r"--segment would do nothing with --long truncate"),
        ({"long": "chunk", "combine": "mlp"}, "--combine would do nothing"),
        ({"long": "hierarchical", "aggregate": "max"}, "--aggregate would do nothing"),
        ({"long": "chunk", "minutes": 5}, "--minutes would do nothing"),
        ({"long": "chunk", "overlap": -1}, "--overlap -1: expected a whole number from 0"),
        ({"clean": "html"}, "--clean"),
    ):
        with pytest.raises(UsageError, match=said):
            Reading(**wrong)
    with pytest.raises(UsageError, match="at most half"):
        read(tiny_base("bert").tokenizer, ["a"], 20, reading=Reading("chunk", overlap=15))


def test_settings_go_to_the_header_and_back() -> None:
    assert PLAIN.settings() == {}
    for reading in (
        Reading("chunk"), Reading("chunk", aggregate="score", prior=(0.25, 0.75)), Reading(clean="transcript"),
        Reading("hierarchical", combine="bilstm", segment="minutes", minutes=5),
    ):  # fmt: skip
        stored = json.loads(json.dumps(reading.settings()))
        assert stored and Reading.restored(stored) == reading
    with pytest.raises(UsageError, match="has no stride"):
        Reading.restored({"long": "chunk", "stride": 5})


def test_whole_pages_are_read_to_their_end(words: Tokenizer) -> None:
    page = "\u0301" * 5_000 + LONG_TEXT * 20 + " " * 5_000 + "item" * 2_000
    found = documents(words, [page], 64)
    assert len(found) > 100 and found.spans[-1].end == len(page)
