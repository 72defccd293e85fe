"""An adapter without lora_clf: its change written into plain weights, as transformers and its pipeline read them.

Two ways. `export` writes one folder of transformers' classification class, head and labels included; it takes family
heads, since that class has no other. `merge` writes the backbone as a new base and the head as a head-only adapter on
it; it takes every head. Both read back what they wrote and compare before the folder gets its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.base_check import check_own_base
from lora_clf.adapters.canary import SENTENCES, drift_of
from lora_clf.adapters.disk import fill_in_place_of
from lora_clf.adapters.file import CARD
from lora_clf.adapters.header import Header
from lora_clf.adapters.layout import HEAD, hub_name
from lora_clf.adapters.plain_folder import HEAD_FOLDER, TAG, check_apart, check_base_name, check_free_model
from lora_clf.base.base import Base, load_base, name_of
from lora_clf.base.transformers_folder import write_backbone, write_classifier
from lora_clf.base.weights import quiet
from lora_clf.data.corpus import SOURCES
from lora_clf.errors import AdapterError, UnsupportedBaseError, UsageError
from lora_clf.metrics.probability import softmax
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.regression import Regression
from lora_clf.tuners import create

CHECKED: Final = ("plain", "promotion", "short", "foreign", "long")
"""The fixed sentences on which both programs must agree; the others spell special tokens, which is text only to us."""

TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        folder: where it is.
        difference: the largest difference to the adapter on the fixed sentences: of probabilities for `export`, of
            logits, as a share of max(1, |logit|), for `merge`.
        remarks: what a person should know.
    """

    folder: Path
    difference: float
    remarks: tuple[str, ...] = ()


def export(adapter: Adapter, folder: Path | str, *, force: bool = False) -> Written:
    """Write ``adapter`` as a folder that ``pipeline("text-classification")`` runs, with equal probabilities.

    A temperature goes into the head's last layer; a threshold has no place there and is left out, with a remark. Of a
    regression mean and deviation go there too, so the pipeline's score is the number.

    Raises:
        UsageError: transformers has no class that answers the adapter's task: ordered classes.
        UsageError: the head is free: transformers has no class for it; the message has the command that retrains.
        UsageError: the place is the base's own, or the adapter reads texts in chunks or cleans them.
        UsageError: the adapter was let onto another base than its own.
        UnsupportedBaseError: transformers does not load the base's tokenizer.
        AdapterExistsError: there is something already.
        AdapterError: what was written does not compute the same, or cannot be written.
    """
    header = adapter.header
    check_own_base(header, adapter.base)
    task = header.answering
    if task.problem is None:
        raise UsageError(
            f"transformers has no classification class whose pipeline answers an {header.task} task: its outputs would "
            "be read as classes of their own. Use lora_clf, or the lines of the adapter's card."
        )
    if header.pooling != "family":
        raise UsageError(_not_family(adapter))
    if header.reading:
        raise UsageError(
            f"This adapter reads long texts its own way ({header.how}), which the pipeline of transformers does not: "
            "it would cut them off. Train it with --long truncate to export it."
        )
    target = Path(folder)
    check_apart(target, adapter.base)
    check_free_model(target, force=force)
    remarks = _remarks(header)
    found: list[float] = []

    def fill(incoming: Path) -> None:
        batches = write_classifier(
            adapter.base,
            adapter.tuned.merge(),
            incoming,
            labels=header.labels,
            max_length=header.max_length,
            truncation=header.truncation,
            temperature=header.temperature or 1.0,
            problem=task.problem or "",
            units=(task.std, task.mean) if isinstance(task, Regression) else None,
        )
        if not batches:
            remarks.append("The base's tokenizer has no token to pad with: the pipeline takes one text at a time.")
        (incoming / CARD).write_text(_page(header, remarks), encoding="utf-8")
        found.append(_compare(adapter, incoming, batches))

    _write(target, fill, force)
    return Written(target, found[0], tuple(remarks))


def merge(adapter: Adapter, folder: Path | str, *, force: bool = False) -> tuple[Written, Adapter]:
    """Write the backbone of ``adapter`` as a new base to ``folder``, and its head as an adapter on that to folder/head.

    Raises:
        UsageError: there is nothing to merge: the adapter is a head; or the place is the base's own, or its name none
            that a base can have; or the adapter was let onto another base than its own.
        NotMergeableError: the strategy's change fits no plain weights.
        AdapterExistsError: there is something already.
        AdapterError: what was written does not compute the same, or cannot be written.
    """
    check_own_base(adapter.header, adapter.base)
    if not any(not name.startswith(HEAD) for name in adapter.tuned.trainable()):
        raise UsageError(
            f"A {adapter.header.strategy} adapter is a head and nothing else: its base {adapter.base.name} holds plain "
            "weights already."
        )
    if adapter.base.prompt is not None:
        raise UsageError(
            "The adapter answers with the language model's head of its base (verbalizer), which plain weights of the "
            f"backbone do not hold. `lora-clf predict` uses it with {adapter.base.name} as it is."
        )
    target = Path(folder)
    check_base_name(target)
    check_apart(target, adapter.base)
    check_free_model(target, force=force)
    merged: list[tuple[Adapter, float]] = []

    def fill(incoming: Path) -> None:
        write_backbone(adapter.base, adapter.tuned.merge(), incoming)
        base = load_base(incoming, device=name_of(adapter.base.device))
        named = replace(base, name=target.resolve().name, folder=target)
        if named.tokenizer_digest != adapter.base.tokenizer_digest:
            raise AdapterError(f"The tokenizer of {adapter.base.name} did not come through as it was.")
        head = _head_on(named, adapter)
        head.save(incoming / HEAD_FOLDER)
        merged.append((head, _drift(adapter, head)))

    _write(target, fill, force)
    head, drift = merged[0]
    return Written(target, drift), head


def _head_on(base: Base, adapter: Adapter) -> Adapter:
    """The head of ``adapter`` as a head-only adapter on ``base``; how it was trained and measured stays on record."""
    view = adapter.tuned.view
    tuned = create("head-only").prepare(base.view(view.classes, view.pooling, view.seed, view.combine))
    tuned.load_state_dict({name: t for name, t in adapter.tuned.state_dict().items() if name.startswith(HEAD)})
    old = adapter.header
    header = replace(
        old,
        strategy="head-only",
        settings={},
        base_name=base.name,
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer_digest,
        scaling=None,
        fan_in_fan_out=None,
        training={**old.training, "merged_from": old.strategy, "merged_base": old.base_name},
        canaries=None,
        digest="",
        tensors=(),
    )
    return Adapter(base, tuned, header)


def _drift(adapter: Adapter, head: Adapter) -> float:
    """How far the two are apart on the fixed sentences, as a share of max(1, |logit|).

    Raises:
        AdapterError: too far.
    """
    texts = list(SENTENCES.values())
    expected, now = (each.logits(texts).astype(np.float64) for each in (adapter, head))
    drift = float(drift_of(now, expected).max())
    if not drift <= TOLERANCE:
        raise AdapterError(
            f"The merged weights compute something else: the logits of the fixed sentences differ by {drift:.2g}, "
            f"where {TOLERANCE} is allowed. Nothing was written."
        )
    return drift


def _compare(adapter: Adapter, folder: Path, batches: bool) -> float:
    """How far the pipeline's probabilities on ``folder`` are from the adapter's, alone and in one batch.

    Raises:
        AdapterError: too far.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    texts = [SENTENCES[name] for name in CHECKED]
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        run: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
        rows = [run(texts, truncation=True, top_k=None, batch_size=size) for size in ((1, 5) if batches else (1,))]
    expected = _scores(adapter, texts)
    largest = 0.0
    for row in rows:
        shares = [{each["label"]: each["score"] for each in answer} for answer in row]
        now = np.array([[share[label] for label in adapter.labels] for share in shares])
        largest = max(largest, float(drift_of(now, expected).max()))
    if not largest <= TOLERANCE:
        theirs = tokenizer(texts, truncation=True)["input_ids"]
        ours = adapter.encode(texts).ids
        odd = [name for name, one, other in zip(CHECKED, theirs, ours, strict=True) if list(one) != other.tolist()]
        cause = f" Its tokenizer reads {', '.join(odd)} differently." if odd else ""
        raise AdapterError(
            f"transformers computes something else from the folder: probabilities of the fixed sentences differ by "
            f"{largest:.2g}, where {TOLERANCE} is allowed.{cause} Nothing was written."
        )
    return largest


def _scores(adapter: Adapter, texts: Sequence[str]) -> NDArray[np.float64]:
    """What the pipeline must say of each label (N, C): probabilities, of a regression the number."""
    task, logits = adapter.header.answering, adapter.logits(texts)
    if isinstance(task, Regression):
        return task.values(logits)[:, None]
    if isinstance(task, Multilabel):
        return task.shares(logits)
    return softmax(logits.astype(np.float64) / (adapter.header.temperature or 1.0))


def _write(target: Path, fill: Any, force: bool) -> None:
    try:
        fill_in_place_of(Path(os.path.realpath(target)), fill, replace=force)
    except OSError as error:
        if isinstance(error, (AdapterError, UnsupportedBaseError)):
            raise
        raise AdapterError(f"The model could not be written to {target}: {error.strerror or error}.") from error


def _not_family(adapter: Adapter) -> str:
    header = adapter.header
    if adapter.base.architecture.family is None:
        return (
            f"transformers' classification class of a {header.architecture} base runs the decoder too, so no folder of "
            "its kind computes what this adapter computes. `lora-clf adapters merge` writes plain weights for lora_clf."
        )
    if header.verbalizer is not None:
        return (
            "The adapter's head is a verbalizer: a template around the text and the language model's own scores of the "
            "labels' words, which no classification class of transformers has. `lora-clf predict` uses it."
        )
    return (
        f"The adapter's head is a free one (pooling {header.pooling}), which transformers has no class for. Train it "
        f"again with the head of that class: `{_training(header)}`. Or `lora-clf adapters merge` writes plain weights "
        "for lora_clf."
    )


def _training(header: Header) -> str:
    """The command that trains the same again with a family head."""
    data = header.data_name if header.data_name in SOURCES else "DATA"
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in header.settings.items() if value is not None]
    base = [] if header.base_name == "minilm" else [f"--base {header.base_name}"]
    parts = [f"lora-clf train {data}", *base, f"--strategy {header.strategy}"]
    return " ".join([*parts, *flags, f"--seed {header.seed}", "--pooling family"])


def _remarks(header: Header) -> list[str]:
    found = []
    task = header.answering
    if isinstance(task, Regression):
        found.append("The pipeline's score is the number itself: mean and deviation went into the head's weights.")
    if isinstance(task, Multilabel):
        cuts = ", ".join(f"{label} from {cut:.4g}" for label, cut in zip(task.labels, task.cuts, strict=True))
        found.append(
            "Labels are given from a probability on that the caller has to compare each score with (top_k=None): "
            f"{cuts}."
        )
    if header.temperature is not None:
        found.append(f"The temperature {header.temperature:g} went into the head's weights.")
    if header.threshold is not None:
        found.append(
            f"The threshold does not go along: {header.positive_label} is predicted from a probability of "
            f"{header.threshold:g} on only if the caller compares its score with that; the pipeline takes the most "
            "probable label."
        )
    return found


def _page(header: Header, remarks: Sequence[str]) -> str:
    repository, revision = hub_name(header.base_name)
    top = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    if "/" in repository:
        top += ["base_model:", f"- {json.dumps(repository)}", "base_model_relation: finetune"]
    base = repository + (f" at {revision}" if revision else "")
    lines = [
        *(*top, "tags:", f"- {TAG}", "---", ""),
        f"# A text classifier on {base}",
        "",
        f"Labels: {', '.join(header.labels)}. Written by `lora-clf adapters export` from a {header.strategy} adapter "
        f"(digest {header.digest[:12] or 'not saved'}) on a base with the digest {header.base_digest[:12]}.",
        *(
            []
            if header.data_name is None
            else ["", f"Data: {header.data_name} ({header.licence or 'licence unknown'})."]
        ),
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'classify = pipeline("text-classification", model="path/to/this/folder")',
        'print(classify(["Your text"], truncation=True))',
        "```",
        "",
        f"`truncation=True` cuts a text to the {header.max_length} tokens that the classifier was made for; without it "
        "a text longer than the base has positions is an error. A text that spells a special token of the base is read "
        "as that token here; lora_clf reads it as text.",
        *(line for remark in remarks for line in ("", remark)),
    ]
    return "\n".join(lines) + "\n"
