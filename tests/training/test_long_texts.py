"""Long texts train as chunks of one document: labels, splits, gradients, memory, what is read and what is not."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lora_clf.base.documents import Documents
from lora_clf.base.reading import Reading, read
from lora_clf.base.tokenizer import Tokens
from lora_clf.data.dataset import Dataset, load_data
from lora_clf.errors import LoraClfError, UsageError
from lora_clf.inference import runner as runner_module
from lora_clf.inference.documents import check_outputs, join
from lora_clf.inference.predict import logits
from lora_clf.inference.runner import Runner
from lora_clf.training import loop
from lora_clf.training.checkpoints import Checkpoints
from lora_clf.training.loop import train
from lora_clf.training.result import Result
from lora_clf.training.run import Run
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import randomise, tiny_base
from tests.training.long_toy import LENGTH, long_toy

CHUNK = Reading("chunk", overlap=0)
NETWORKS = ("attention", "mlp", "bilstm")
FAST = TrainSettings(epochs=1, batch_size=8, lr=1e-2, precision="fp32", max_length=LENGTH)
SOLVED = TrainSettings(precision="fp32", max_length=LENGTH)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return long_toy()


def logs(*rows: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(rows, dtype=np.float32))


def documents(chunks: list[int], reading: Reading) -> Documents:
    count = sum(chunks)
    first = np.concatenate([[0], np.cumsum(chunks)])
    ids, none, whole = [np.zeros(1, np.int32)] * count, np.zeros(count, bool), np.zeros(len(chunks), bool)
    return Documents(ids, none, first=first, spans=(), left_out=whole, reading=reading)


def test_answers_are_joined_as_defined() -> None:
    each = logs((0.6, 0.4), (0.5, 0.5), (0.1, 0.9), (0.7, 0.3))
    expected = {
        "mean": ((0.4, 0.6), (0.7, 0.3), (1 / 3, 1 / 3, 1 / 3)),
        "max": ((0.6 / 1.5, 0.9 / 1.5), (0.7, 0.3), (0, 0, 1)),
        "vote": (((2 + 0.4) / 4, (1 + 0.6) / 4), (1.7 / 2, 0.3 / 2), (0.5, 0.5, 0)),
        "score": ((0.03 / 0.21, 0.18 / 0.21), (0.7, 0.3), (0, 0, 1)),
    }
    assert len(expected) == 4
    for aggregate, (first, second, shares) in expected.items():
        found = join(each, documents([3, 1], Reading("chunk", aggregate=aggregate)))
        np.testing.assert_allclose(np.exp(found.logits), [first, second], atol=1e-6, err_msg=aggregate)
        np.testing.assert_allclose(found.shares, [*shares, 1], atol=1e-6, err_msg=aggregate)
    # What says no more than the classes' shares in training changes nothing.
    skewed = Reading("chunk", aggregate="score", prior=(0.9, 0.1))
    found = join(logs((0.9, 0.1), (0.9, 0.1), (0.5, 0.5)), documents([3], skewed))
    np.testing.assert_allclose(np.exp(found.logits), [(0.5, 0.5)], atol=1e-6)
    np.testing.assert_allclose(found.shares.sum(), 1, atol=1e-6)
    outputs = np.array([[1.0, 5.0], [3.0, -1.0]], dtype=np.float32)
    assert join(outputs, documents([2], CHUNK), softmax=False).logits.tolist() == [[2.0, 2.0]]
    largest = Reading("chunk", aggregate="max")
    assert join(outputs, documents([2], largest), softmax=False).logits.tolist() == [[3.0, 5.0]]
    with pytest.raises(UsageError, match="--aggregate vote joins probabilities"):
        check_outputs(Reading("chunk", aggregate="vote"), False, "regression")


def test_what_stands_behind_the_first_window_is_found_by_all_but_truncation(data: Dataset) -> None:
    base = tiny_base("bert")
    right = {"truncate": train(base, data, create("head-only"), SOLVED).test["accuracy"]}
    for aggregate in ("mean", "max", "score"):
        reading = Reading("chunk", overlap=0, aggregate=aggregate)
        right[aggregate] = train(base, data, create("head-only"), SOLVED, reading=reading).test["accuracy"]
    longer = replace(FAST, epochs=40)
    for network in NETWORKS:
        reading = Reading("hierarchical", overlap=0, combine=network)
        right[network] = train(base, data, create("head-only"), longer, reading=reading).test["accuracy"]
    assert len(right) == 7
    assert right.pop("truncate") <= 0.7
    assert min(right.values()) >= 0.8, right


def test_it_is_said_how_much_is_read(data: Dataset) -> None:
    base = tiny_base("bert")
    cut = train(base, data, create("head-only"), SOLVED)
    used = cut.usage["train"]
    assert used.texts == used.chunks == used.cut == 48 and used.read == 48 * LENGTH
    assert used.tokens == sum(len(text) for text in data.train.texts) == used.read + used.dropped
    assert any(f"{used.dropped:,} of {used.tokens:,} tokens were not read" in warning for warning in cut.warnings)
    assert cut.adapter.header.reading == {}
    whole = train(base, data, create("head-only"), SOLVED, reading=Reading("chunk", overlap=16))
    used = whole.usage["train"]
    assert used.dropped == used.cut == 0 and used.read == used.tokens and used.chunks > 48 and used.shared > 0
    assert not any("not read" in warning for warning in whole.warnings)


@pytest.mark.parametrize("reading", [CHUNK, *(Reading("hierarchical", overlap=0, combine=name) for name in NETWORKS)],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("strategy", ["head-only", "last-block", "lora-scratch"])
def test_answers_do_not_depend_on_what_is_kept_or_who_is_beside(data: Dataset, strategy: str, reading: Reading) -> None:
    base = tiny_base("bert")
    tokens = read(base.tokenizer, data.train.texts, LENGTH, reading=reading)
    assert isinstance(tokens, Documents)

    def prepared() -> object:
        tuned = create(strategy).prepare(base.view(2, combine=reading.combiner))
        randomise(tuned)
        return tuned

    expected = logits(prepared().view, tokens)  # type: ignore[attr-defined]
    assert expected.shape == (48, 2) and expected.std() > 1e-3
    for cache in (True, False):
        runner = Runner(base, prepared(), "fp32", {"train": tokens}, cache=cache)  # type: ignore[arg-type]
        np.testing.assert_allclose(runner.all_logits("train"), expected, atol=1e-5)
    alone = [logits(prepared().view, read(base.tokenizer, [text], LENGTH, reading=reading))  # type: ignore[attr-defined]
             for text in data.train.texts[:4]]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(alone), expected[:4], atol=1e-5)


def test_gradients_of_a_text_in_small_batches_are_those_of_the_whole(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base("bert")
    reading = Reading("hierarchical", overlap=0)
    tokens = read(base.tokenizer, data.train.texts, LENGTH, reading=reading)
    found = []
    for trained_tokens in (1, 10**6):
        monkeypatch.setattr(runner_module, "TRAINED_TOKENS", trained_tokens)
        tuned = create("lora-scratch").prepare(base.view(2, combine="attention"))
        randomise(tuned)
        runner = Runner(base, tuned, "fp32", {"train": tokens})
        runner.logits("train", np.arange(5), training=True).square().sum().backward()
        gradients = {name: p.grad for name, p in tuned.trainable().items()}
        assert all(gradient is not None for gradient in gradients.values()) and len(gradients) > 10
        found.append(gradients)
    for name, gradient in found[0].items():
        other = found[1][name]
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-7)


def test_chunks_of_a_document_never_straddle_a_split() -> None:
    """Splits are of documents: a chunk's text is in no other part, and near copies stay together too."""
    lines = [f'{"ham" if i % 2 else "spam"},speaker {i % 8},"{f"Sentence {i} here. " * 12}"' for i in range(40)]
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "talks.csv"
        file.write_text("label,speaker,text\n" + "\n".join(lines), encoding="utf-8")
        data = load_data(file, group_column="speaker", protocol="random", split="50/25/25")
    speakers = {name: set(part.columns["speaker"]) for name, part in data.parts.items()}
    assert all(speakers.values()) and sum(map(len, speakers.values())) == len(set.union(*speakers.values())) == 8
    base = tiny_base("bert")
    seen: dict[bytes, set[str]] = {}
    for name, part in data.parts.items():
        found = read(base.tokenizer, part.texts, LENGTH, reading=CHUNK)
        assert isinstance(found, Documents) and found.texts == len(part) < len(found)
        for ids in found.ids:
            seen.setdefault(ids.tobytes(), set()).add(name)
    assert len(seen) >= 40 and all(len(parts) == 1 for parts in seen.values())


def test_the_inner_folds_of_the_solver_are_of_documents(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_clf.training import run as run_module

    taken: list[np.ndarray] = []
    solve = run_module.solve_head

    def noted(features: object, labels: object, classes: int, folds: np.ndarray, **more: object) -> object:
        taken.append(folds)
        return solve(features, labels, classes, folds, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "solve_head", noted)
    base = tiny_base("bert")
    train(base, data, create("head-only"), SOLVED, reading=CHUNK)
    tokens = read(base.tokenizer, data.train.texts, LENGTH, reading=CHUNK)
    assert isinstance(tokens, Documents) and len(taken[0]) == len(tokens) and len(set(taken[0].tolist())) > 1
    for start, end in zip(tokens.first[:-1], tokens.first[1:], strict=True):
        assert len(set(taken[0][start:end].tolist())) == 1


@pytest.mark.parametrize("reading", [CHUNK, Reading("hierarchical", overlap=0, combine="bilstm")], ids=str)
def test_the_same_seed_gives_the_same_weights_and_a_break_changes_nothing(
    data: Dataset, reading: Reading, tmp_path: object
) -> None:
    base, settings = tiny_base("bert"), replace(FAST, epochs=2)

    class Stop(Exception):
        pass

    def run(**more: object) -> Result:
        return train(base, data, create("lora-scratch"), settings, reading=reading, **more)  # type: ignore[arg-type]

    first, again = (run().adapter.tuned.state_dict() for _ in range(2))
    assert len(first) > 10 and all(torch.equal(first[name], again[name]) for name in first)

    def stop(progress: object) -> None:
        if progress.step == 7:  # type: ignore[attr-defined]
            raise Stop

    place = f"{tmp_path}/kept"
    with pytest.raises(Stop):
        run(checkpoints=Checkpoints(place, every="2"), progress=stop)
    resumed = run(checkpoints=Checkpoints(place, resume=True))
    assert resumed.resumed_step == 6
    state = resumed.adapter.tuned.state_dict()
    assert state.keys() == first.keys() and all(torch.equal(first[name], state[name]) for name in first)


def test_a_result_holds_what_scores_it_and_not_the_run(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[weakref.ref[Run]] = []
    begin = loop._begin

    def noted(*args: Any) -> Run:
        run = begin(*args)
        runs.append(weakref.ref(run))
        return run

    monkeypatch.setattr(loop, "_begin", noted)
    settings = TrainSettings(epochs=1, precision="fp32", max_length=LENGTH)
    result = train(tiny_base("bert"), data, create("head-only"), settings, reading=Reading("chunk"))
    gc.collect()
    assert [run() for run in runs] == [None]
    assert result.ending.answers is not None
    runner = result.ending.answers.args[1]
    assert runner.tokens.keys() == runner._states.keys() == {"validation", "test"}
    scored = result.ending.score(result.adapter.tuned)
    assert np.array_equal(scored.logits["test"], result.test_logits) and result.test_logits.std() > 1e-3


def test_short_texts_are_one_chunk_and_read_as_ever() -> None:
    base = tiny_base("bert")
    texts = ["short", "also short"]
    view = base.view(2)
    plain, chunked = base.encode(texts, LENGTH), read(base.tokenizer, texts, LENGTH, reading=CHUNK)
    assert isinstance(chunked, Documents) and not isinstance(plain, Documents) and isinstance(plain, Tokens)
    assert [a.tolist() for a in plain.ids] == [b.tolist() for b in chunked.ids]
    shares = torch.from_numpy(logits(view, plain)).log_softmax(-1).numpy()
    np.testing.assert_allclose(logits(view, chunked), shares, atol=1e-5)


def test_a_family_head_is_refused_over_chunks() -> None:
    data = long_toy(16)
    with pytest.raises(LoraClfError, match="--pooling mean, first or last"):
        train(tiny_base("bert"), data, create("head-only"), FAST, pooling="family", reading=Reading("hierarchical"))
