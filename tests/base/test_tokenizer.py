"""Tokenizers: parity with the plain ones, user text that stays text, digests blind to storage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from lora_clf.base.edges import Edges
from lora_clf.base.text import Text
from lora_clf.base.tokenizer import BytePairs, Tokenizer, load_tokenizer
from lora_clf.errors import BaseNotFoundError, UnsupportedBaseError, UsageError

CORPUS = [
    "Do you have time for a free prize today, or are you at work?",
    "Your parcel is waiting. Pay 1.99 to free it: http://parcel.example/x1",
    "ok see you at 7pm then, don't be late again!!",
    "na\u00efve caf\u00e9, 100% \u00a3\u20ac \U0001f600 and  two spaces\tand a tab\n",
] * 3

# Digests are written into adapters: one that changes makes them useless.
TINY_BERT = "9db24cc03f9a0b7663a599c8c460676a53b545e268b7afd652a5ab8d2b00385b"
GPT2 = "84a3e730daba46db86bcb6c85c963cdc56df3e72d43514a067416d50eaa2d0a5"
MINILM = "9e2d6ff3c729af5ff9da6f396e59595a0f52ab85ca3c2750ed175648bc9a4060"


def bert_engine() -> Engine:
    """An uncased WordPiece with every letter, some words, and the usual special tokens."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!?:/[]<>|"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words += ["free", "prize", "you", "time", "##ing", "pad", "cls", "sep", "mask"]
    vocabulary = {word: id for id, word in enumerate(words)}
    engine = Engine(models.WordPiece(vocabulary, unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.add_special_tokens(words[:5])
    pair = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    engine.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    return engine


def byte_engine(special: tuple[str, ...] = ("<|endoftext|>",)) -> Engine:
    """Byte pairs as GPT-2 has them, learnt from the corpus; the special token comes last, as in GPT-2."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    engine.add_special_tokens(list(special))
    return engine


def unigram_engine() -> Engine:
    """Pieces as T5 has them: the special tokens are ordinary entries of the vocabulary."""
    letters = sorted({letter for text in CORPUS for letter in text if not letter.isspace()} | set("</>pads"))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581free", -3.0)]
    pieces += [(letter, -5.0) for letter in letters]
    engine = Engine(models.Unigram(pieces, unk_id=2))
    engine.normalizer = normalizers.NFKC()
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.add_special_tokens(["<pad>", "</s>", "<unk>"])
    engine.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return engine


def word_engine() -> Engine:
    """Whole words between white space, where a special token is a word like any other."""
    words = {word: id for id, word in enumerate(["[PAD]", "[UNK]", "</s>", "free", "prize", "[PA", "D]"])}
    engine = Engine(models.WordLevel(words, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return engine


def saved(engine: Engine, folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ids(tokenizer: Tokenizer, text: str, max_length: int = 64, **more: Any) -> list[int]:
    return [int(id) for id in tokenizer.encode([text], max_length, **more).ids[0]]


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> Tokenizer:
    folder = shared / "tokenizers" / "gpt2"
    if not (folder / "merges.txt").is_file():
        pytest.skip("needs GPT-2's vocab.json and merges.txt in shared/tokenizers/gpt2")
    return load_tokenizer(folder, {"model_type": "gpt2", "bos_token_id": 50256, "eos_token_id": 50256})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(
        saved(bert_engine(), tmp_path_factory.mktemp("bert")), {"model_type": "bert", "pad_token_id": 0}
    )


# Parity


def test_gpt2_gives_the_ids_of_the_book(gpt2: Tokenizer) -> None:
    assert ids(gpt2, "Do you have time") == [5211, 345, 423, 640]
    assert ids(gpt2, "") == [50256] == [gpt2.empty_id] == [gpt2.pad_id]
    assert ids(gpt2, "Hello,  world\n") == [15496, 11, 220, 995, 198]


def test_gpt2_gives_the_ids_of_transformers_on_every_sms(gpt2: Tokenizer, shared: Path) -> None:
    from transformers import GPT2TokenizerFast

    lines = (shared / "data" / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").split("\n")
    texts = [line.split("\t", 1)[1] for line in lines if line]
    assert len(texts) == 5574
    start = time.process_time()
    tokens = gpt2.encode(texts, 1024)
    seconds = time.process_time() - start
    reference = GPT2TokenizerFast.from_pretrained(shared / "tokenizers" / "gpt2")
    assert [row.tolist() for row in tokens.ids] == reference(texts)["input_ids"]
    assert not tokens.truncated.any() and len(tokens) == 5574 and tokens.lengths.sum() == sum(map(len, tokens.ids))
    assert seconds < 5  # of the processor: 0.15 on a free core


def test_byte_pairs_run_by_tiktoken_equal_the_tokenizers_library(tmp_path: Path) -> None:
    engine = byte_engine()
    folder = saved(engine, tmp_path)
    fast, tiktoken = load_tokenizer(folder, {"model_type": "other"}), load_tokenizer(folder, {"model_type": "gpt2"})
    assert isinstance(tiktoken._backend, BytePairs) and not isinstance(fast._backend, BytePairs)
    for text in [*CORPUS, "don't  stop \u0928\u092e\u0938\u094d", "  a", "a  ", "x" * 700]:
        assert ids(fast, text, 900) == ids(tiktoken, text, 900) == engine.encode(text).ids


def test_ids_that_are_not_in_the_order_of_the_merges_are_not_given_to_tiktoken(tmp_path: Path) -> None:
    form = json.loads(byte_engine().to_str())
    vocabulary = form["model"]["vocab"]
    first, last = ("".join(form["model"]["merges"][place]) for place in (0, -1))
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    engine = Engine.from_str(json.dumps(form))
    tokenizer = load_tokenizer(saved(engine, tmp_path), {"model_type": "gpt2"})
    assert not isinstance(tokenizer._backend, BytePairs)
    assert ids(tokenizer, CORPUS[0]) == engine.encode(CORPUS[0]).ids


@pytest.mark.parametrize("make", [bert_engine, byte_engine, unigram_engine, word_engine])
def test_ordinary_texts_get_the_ids_of_the_file_itself(make: Any, tmp_path: Path) -> None:
    engine = make()
    tokenizer = load_tokenizer(saved(engine, tmp_path), {"model_type": "other"})
    tokens = tokenizer.encode(CORPUS, 200)
    assert [row.tolist() for row in tokens.ids] == [engine.encode(text).ids for text in CORPUS]
    assert all(row.dtype == np.int32 for row in tokens.ids) and not tokens.truncated.any()


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    engine = bert_engine()
    plain = load_tokenizer(saved(engine, tmp_path / "plain"), {})
    engine.enable_truncation(8)
    engine.enable_padding(length=16)
    cut = load_tokenizer(saved(engine, tmp_path / "cut"), {})
    assert ids(cut, CORPUS[0]) == ids(plain, CORPUS[0]) and len(ids(cut, CORPUS[0])) > 16
    assert cut.digest == plain.digest


# Cutting


@pytest.mark.parametrize("side", ["right", "left"])
def test_special_tokens_survive_truncation(bert: Tokenizer, side: str) -> None:
    whole = ids(bert, "free prize you time")
    assert whole[0] == 2 and whole[-1] == 3 and len(whole) == 6
    tokens = bert.encode(["free prize you time", "free prize", ""], 4, side)  # type: ignore[arg-type]
    body = whole[1:3] if side == "right" else whole[3:5]
    assert [row.tolist() for row in tokens.ids] == [[2, *body, 3], [*whole[:3], 3], [2, 3]]
    assert tokens.truncated.tolist() == [True, False, False] and tokens.lengths.tolist() == [4, 4, 2]


def test_a_length_without_room_is_refused(bert: Tokenizer) -> None:
    with pytest.raises(UsageError, match="--max-length 3 or more"):
        bert.encode(["free"], 2)


def test_the_cap_marks_what_it_cuts_and_keeps_the_asked_end(bert: Tokenizer) -> None:
    long = "free " * 300_000 + "prize"
    right, left = bert.encode([long], 16), bert.encode([long], 16, "left")
    assert right.truncated[0] and left.truncated[0]
    prize = ids(bert, "prize")[1]
    assert prize not in right.ids[0] and left.ids[0][-2] == prize
    word = bert.encode(["x" * 10_000_000], 16)
    assert word.truncated[0] and len(word.ids[0]) == 3


@pytest.mark.parametrize("storm", ["\u0301", " ", "\0", "\u200b"])
def test_a_storm_in_front_does_not_hide_the_text(bert: Tokenizer, storm: str) -> None:
    tokens = bert.encode([storm * 200_000 + "free prize"], 8)
    assert set(ids(bert, "free prize")) <= set(tokens.ids[0].tolist()) and not tokens.truncated[0]


def test_an_empty_text_has_a_token(tmp_path: Path) -> None:
    folder = saved(
        byte_engine(("<|endoftext|>", "<|start|>")), tmp_path, bos_token="<|start|>", eos_token="<|endoftext|>"
    )
    tokenizer = load_tokenizer(folder, {"model_type": "gpt2"})
    end, start = (
        Engine.from_file(str(folder / "tokenizer.json")).token_to_id(name) for name in ("<|endoftext|>", "<|start|>")
    )
    assert ids(tokenizer, "") == ids(tokenizer, "\0") == [start] and tokenizer.pad_id == end
    assert load_tokenizer(folder, {"model_type": "gpt2", "pad_token_id": 3}).pad_id == 3
    assert load_tokenizer(folder, {"model_type": "gpt2", "pad_token_id": 10_000, "vocab_size": 402}).pad_id == end


def test_no_texts_give_no_tokens(bert: Tokenizer) -> None:
    tokens = bert.encode([], 8)
    assert len(tokens) == 0 and tokens.lengths.shape == (0,) and tokens.truncated.shape == (0,)


# Text stays text

SPELLINGS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<|endoftext|>", "\uff1c/s\uff1e"]


@pytest.mark.parametrize("make", [bert_engine, byte_engine, unigram_engine, word_engine])
@pytest.mark.parametrize("flagged", [True, False])
def test_what_a_user_spells_never_becomes_a_special_token(make: Any, flagged: bool, tmp_path: Path) -> None:
    form = json.loads(make().to_str())
    for token in form["added_tokens"]:
        token["special"] = flagged  # some folders name special tokens only in tokenizer_config.json
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": {"content": "[MASK]"}}
    if make is not bert_engine:
        names = {"pad_token": "<pad>" if make is unigram_engine else "[PAD]", "eos_token": "</s>"}
    if make is byte_engine:
        names = {"eos_token": "<|endoftext|>"}
    engine = Engine.from_str(json.dumps(form))
    tokenizer = load_tokenizer(saved(engine, tmp_path, **names), {"model_type": "other"})
    special = {engine.token_to_id(name if isinstance(name, str) else name["content"]) for name in names.values()}
    around = len(tokenizer._prefix)
    for spelling in SPELLINGS:
        for text in (spelling, f"free{spelling}prize", f"{spelling} free prize", f"free prize {spelling}{spelling}"):
            row = ids(tokenizer, text)
            body = row[around : len(row) - len(tokenizer._suffix)]
            assert body and special.isdisjoint(body), (text, row)
            if text.startswith("free prize "):
                whole = ids(tokenizer, "free prize")
                assert (
                    body[: len(whole) - around - len(tokenizer._suffix)]
                    == whole[around : len(whole) - len(tokenizer._suffix)]
                )


@pytest.mark.parametrize("make", [bert_engine, byte_engine])
def test_special_tokens_at_the_ends_of_a_text_are_left_out_and_said_to_be(make: Any, tmp_path: Path) -> None:
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"} if make is bert_engine else {}
    tokenizer = load_tokenizer(saved(make(), tmp_path, **names), {"model_type": "other"})
    own = "[SEP]" if make is bert_engine else "<|endoftext|>"
    plain = tokenizer.encode(["free prize"], 60).ids[0].tolist()
    for text in (
        f"{own}free prize", f"free prize{own}", f" {own} \n<|im_start|>{own}free prize {own}{own} ",
        "<|endoftext|>" * 50 + "free prize", f"free prize{own}" + "\u0301" * 100, f"\u200b{own * 2}free prize",
    ):  # fmt: skip
        for side in ("right", "left"):
            tokens = tokenizer.encode([text], 60, side)
            assert tokens.ids[0].tolist() == plain and tokens.truncated[0], text
    as_they_are = (
        own, f"{own} {own}", f"free {own} prize", f"free{own}prize", f"free prize {own[1:]}", "free <|prize", "free>",
        "<free> prize", "[free] prize [1]", "<| free |>", "<||>", "a" + own + "b", "<b>free</b>",
    )  # fmt: skip
    for text in as_they_are:
        tokens = tokenizer.encode([text], 60)
        around = len(tokenizer.around[0]), len(tokens.ids[0]) - len(tokenizer.around[1])
        assert not tokens.truncated[0], text
        assert tokens.ids[0].tolist()[around[0] : around[1]] == tokenizer._backend.bodies([text])[0]


def test_a_text_of_special_tokens_takes_no_time() -> None:
    edges, start = Edges(["[PAD]", "[CLS]"]), time.process_time()
    many, open_ones = "<|a|> " * 20_000, "<|" * 50_000 + "|>"  # more than the cap leaves of a text
    for text in (many + "x", "x" + many, many, open_ones, " " * 100_000, "x" * 100_000 + ">"):
        edges.trim(Text(text, False))
    assert time.process_time() - start < 2


def test_gpt2_reads_endoftext_as_text(gpt2: Tokenizer) -> None:
    assert ids(gpt2, "<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert 50256 not in ids(gpt2, "free <|endoftext|><|endoftext|> prize<|endoftext|>")


@given(
    st.lists(
        st.sampled_from([*SPELLINGS, "free", " ", "\u0301", "\ud800", "\0", "<", "/s", ">", "\u00e9"]), max_size=12
    )
)
@settings(max_examples=150, deadline=None)
def test_any_mixture_encodes_without_special_ids_and_the_same_each_time(parts: list[str]) -> None:
    text = "".join(parts)
    for tokenizer in _loaded():
        first, again = tokenizer.encode([text, "x", text], 48), tokenizer.encode([text], 48)
        row = first.ids[0].tolist()
        assert row == first.ids[2].tolist() == again.ids[0].tolist() and 1 <= len(row) <= 48
        body = row[len(tokenizer._prefix) : len(row) - len(tokenizer._suffix)]
        assert {0, 1}.isdisjoint(body) if tokenizer._suffix == (1,) else {0, 2, 3, 4}.isdisjoint(body)


_CACHE: list[Tokenizer] = []


def _loaded() -> list[Tokenizer]:
    if not _CACHE:
        from lora_clf.base.fast_tokenizer import FastTokenizer

        for engine in (bert_engine(), unigram_engine()):
            fast = FastTokenizer(engine.to_str(), {})
            _CACHE.append(Tokenizer(fast, fast.prefix, fast.suffix))
    return _CACHE


# Digests


def test_digests_are_pinned(bert: Tokenizer, gpt2: Tokenizer) -> None:
    assert bert.digest == TINY_BERT
    assert gpt2.digest == GPT2


@pytest.mark.usefixtures("real_cache")
def test_the_digest_of_minilm_is_pinned() -> None:
    from lora_clf.base.sources import cache_folder

    folder = cache_folder("minilm")
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("minilm is not in the cache of this machine: lora-clf bases fetch minilm")
    tokenizer = load_tokenizer(folder, {"model_type": "bert", "pad_token_id": 0})
    assert tokenizer.digest == MINILM
    assert ids(tokenizer, "You won a prize") == [101, 2017, 2180, 1037, 3396, 102]


def test_saving_by_transformers_leaves_the_digest_of_gpt2(gpt2: Tokenizer, shared: Path, tmp_path: Path) -> None:
    from transformers import GPT2TokenizerFast

    GPT2TokenizerFast.from_pretrained(shared / "tokenizers" / "gpt2").save_pretrained(tmp_path)
    assert not (tmp_path / "merges.txt").exists()
    for model_type in ("gpt2", "other"):
        assert load_tokenizer(tmp_path, {"model_type": model_type}).digest == gpt2.digest


@pytest.mark.parametrize("name", ["BertTokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_saving_by_transformers_leaves_the_digest(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    engine, model_type = (byte_engine(), "gpt2") if name == "GPT2Tokenizer" else (bert_engine(), "bert")
    roles = {"eos_token": "<|endoftext|>"} if model_type == "gpt2" else {
        "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"
    }  # fmt: skip
    folder = saved(engine, tmp_path / "first", tokenizer_class=name, **roles)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    first, again = (load_tokenizer(tmp_path / part, {"model_type": model_type}) for part in ("first", "again"))
    assert first.digest == again.digest
    assert [row.tolist() for row in first.encode(CORPUS, 99).ids] == [
        row.tolist() for row in again.encode(CORPUS, 99).ids
    ]


def test_two_files_and_tokenizer_json_have_one_digest(tmp_path: Path) -> None:
    engine = byte_engine()
    saved(engine, tmp_path / "one")
    two = tmp_path / "two"
    two.mkdir()
    engine.model.save(str(two))
    assert {file.name for file in two.iterdir()} == {"vocab.json", "merges.txt"}
    digests = {load_tokenizer(tmp_path / part, {"model_type": "gpt2"}).digest for part in ("one", "two")}
    assert len(digests) == 1


def test_tokens_of_the_owner_count_whichever_files_are_there(tmp_path: Path) -> None:
    engine = byte_engine()
    engine.add_tokens(["kettle"])
    folder = saved(engine, tmp_path / "both")
    engine.model.save(str(folder))  # vocab.json and merges.txt, which do not know it
    number = engine.token_to_id("kettle")
    both = load_tokenizer(folder, {"model_type": "gpt2"})
    assert {"tokenizer.json", "vocab.json", "merges.txt"} <= {file.name for file in folder.iterdir()}
    assert number in both.encode(["my kettle"], 20).ids[0].tolist()
    assert load_tokenizer(saved(engine, tmp_path / "one"), {"model_type": "gpt2"}).digest == both.digest


def test_an_added_padding_token_changes_nothing_but_one_merge_does(tmp_path: Path) -> None:
    plain = load_tokenizer(saved(byte_engine(), tmp_path / "plain"), {"model_type": "gpt2"})
    padded = load_tokenizer(saved(byte_engine(("<|endoftext|>", "[PAD]")), tmp_path / "padded"), {"model_type": "gpt2"})
    assert plain.digest == padded.digest
    form = json.loads(byte_engine().to_str())
    form["model"]["merges"].pop()
    fewer = load_tokenizer(saved(Engine.from_str(json.dumps(form)), tmp_path / "fewer"), {"model_type": "gpt2"})
    assert fewer.digest != plain.digest


@pytest.mark.parametrize("change", ["normalizer", "pre_tokenizer", "post_processor", "vocabulary", "unknown id"])
def test_what_changes_ids_changes_the_digest(change: str, bert: Tokenizer, tmp_path: Path) -> None:
    engine = unigram_engine() if change == "unknown id" else bert_engine()
    before = load_tokenizer(saved(engine, tmp_path / "before"), {}).digest
    if change == "normalizer":
        engine.normalizer = normalizers.BertNormalizer(lowercase=False)
    elif change == "pre_tokenizer":
        engine.pre_tokenizer = pre_tokenizers.Whitespace()
    elif change == "post_processor":
        engine.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    elif change == "vocabulary":
        form = json.loads(engine.to_str())
        vocabulary = form["model"]["vocab"]
        vocabulary["free"], vocabulary["prize"] = vocabulary["prize"], vocabulary["free"]
        engine = Engine.from_str(json.dumps(form))
    else:
        form = json.loads(engine.to_str())
        form["model"]["unk_id"] = 0
        engine = Engine.from_str(json.dumps(form))
    assert load_tokenizer(saved(engine, tmp_path / "after"), {}).digest != before


@pytest.mark.parametrize("role", ["pad", "cls", "mask"])
@pytest.mark.parametrize("piece", [".", "free", "##ing"])
def test_a_piece_that_the_config_names_stays_text_as_in_transformers(
    role: str, piece: str, bert: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = saved(bert_engine(), tmp_path, tokenizer_class="PreTrainedTokenizerFast", **{f"{role}_token": piece})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokenizer = load_tokenizer(folder, {"model_type": "bert", "pad_token_id": 0})
    text = "Free time. A prize: you are timing."
    assert ids(tokenizer, text) == ids(bert, text) == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert tokenizer.digest == bert.digest and tokenizer.special == bert.special


@pytest.mark.parametrize(
    ("make", "named"),
    [(word_engine, "[PAD]"), (word_engine, "</s>"), (bert_engine, "[MASK]"), (byte_engine, "<|endoftext|>")],
)
def test_what_the_config_alone_makes_special_is_in_the_digest(make: Any, named: str, tmp_path: Path) -> None:
    form = json.loads(make().to_str())
    form["added_tokens"] = [{**token, "special": False} for token in form["added_tokens"]]
    engine = Engine.from_str(json.dumps(form))
    without, by_name = (
        load_tokenizer(saved(engine, tmp_path / str(len(names)), **names), {}) for names in ({}, {"mask_token": named})
    )
    text = f"free {named} prize"
    assert ids(without, text) != ids(by_name, text) and without.digest != by_name.digest


def test_an_odd_token_for_texts_without_one_is_in_the_digest(tmp_path: Path) -> None:
    folder = saved(byte_engine(), tmp_path)
    end = Engine.from_file(str(folder / "tokenizer.json")).token_to_id("<|endoftext|>")
    digests = [load_tokenizer(folder, {"model_type": "gpt2", "bos_token_id": id}).digest for id in (None, end, 5, 6)]
    assert digests[0] == digests[1] and len(set(digests)) == 3


# Folders


def test_an_old_bert_folder_with_only_a_vocabulary_loads(tmp_path: Path) -> None:
    engine = bert_engine()
    vocabulary = sorted(engine.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(word for word, _ in vocabulary) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    tokenizer = load_tokenizer(tmp_path, {"model_type": "bert", "pad_token_id": 0})
    assert ids(tokenizer, "Free [PAD] prize") == ids(
        load_tokenizer(saved(engine, tmp_path / "x"), {}), "Free [PAD] prize"
    )
    assert tokenizer.digest == TINY_BERT


def test_a_folder_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        BaseNotFoundError, match=r"needs tokenizer\.json, or vocab\.json with merges\.txt.*config\.json"
    ):
        load_tokenizer(tmp_path, {"model_type": "bert"})


def test_a_sentencepiece_model_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(UnsupportedBaseError, match=r"no tokenizer\.json, and none can be made of spiece\.model"):
        load_tokenizer(tmp_path, {"model_type": "t5"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b"[" * 200_000),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"{" * 200_000),
        ("vocab.json", b'{"a": "b"}'),
        ("merges.txt", b"#version: 0.2\na b c\n"),
    ],
)
def test_a_damaged_file_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    saved(byte_engine(), tmp_path)
    if name in ("vocab.json", "merges.txt"):
        byte_engine().model.save(str(tmp_path))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedBaseError):
        load_tokenizer(tmp_path, {"model_type": "gpt2"})


def test_a_giant_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate(1 << 30)  # sparse: takes no room
    with pytest.raises(UnsupportedBaseError, match="are the limit"):
        load_tokenizer(tmp_path, {"model_type": "bert"})
