"""The header of a saved adapter: everything about it that is not a tensor, as one canonical JSON string.

It is the truth about an adapter; ``adapter_config.json`` and the card repeat parts of it for other programs
and for people. adapters/README.md documents schema 1 so that another program can write it. There is no time,
duration, path or host in it: the same run gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lora_clf.adapters.canonical import canonical, parse
from lora_clf.adapters.rules import KNOWN, OPTIONAL, SCHEMA, names_in, problems
from lora_clf.adapters.wording import brief, few
from lora_clf.base.reading import Reading
from lora_clf.errors import AdapterFormatError, UsageError
from lora_clf.tasks import create
from lora_clf.tasks.base import Task


class TensorEntry(NamedTuple):
    """One tensor of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What an adapter is, what it was made on, how it was trained and how to tell that it works.

    Attributes:
        strategy, settings: the strategy's name and hyperparameters.
        task: "binary" (two labels), "multiclass", "multilabel", "regression" or "ordinal".
        labels: in the order of the logits.
        positive_label: the label that binary measures and the threshold are about.
        head: "free", "verbalizer" or the name of the family head; ``pooling``: "mean", "first", "last" or "family".
        max_length, truncation: tokens a text, and the side that is cut away.
        base_name: portable: "minilm", a Hub id, a folder's name; never a path.
        architecture: transformers' ``model_type`` of the base; tells how tensors are named in the file.
        base_digest, tokenizer_digest: SHA-256 of what it was trained on (`Base.digest`, `Tokenizer.digest`).
        scaling: what the low-rank change is multiplied by; None for strategies without one.
        fan_in_fan_out: whether the adapted layers store their weight transposed; None likewise.
        threshold: the positive label is predicted from this probability on; None: the most probable label.
        temperature: what logits are divided by before the softmax; None: nothing.
        task_settings: what the task must know beside the labels to answer rightly; in the file only where there is any.
        reading: how texts are read that are longer than ``max_length``; in the file only where they are not cut off.
        training: the settings of the loop. ``metrics``: {"validation": {...}, "test": {...}}.
        versions: of lora_clf, torch, transformers, peft and python.
        precision, kernels, instruction_set, threads: what, with the versions, the bytes depend on.
        verbalizer: template, words in the order of the labels, and the SHA-256 of the words' rows in the language
            model's head, where the head is a verbalizer; in the file only there.
        canaries: {"set": number, "logits": {sentence's name: one number for each output of the head, which is one a
            label, and one fewer in an ordinal task}}; None until saved.
        requires: names of further fields that a reader must know to use the adapter rightly.
        extra: fields of this schema version that are not known here; kept in a round trip.
        tensors: the manifest, in the file's order. It stands in the file's own table, not in the JSON.
        digest: SHA-256 over this JSON, the manifest and every tensor's bytes; empty until saved.
    """

    strategy: str
    settings: Mapping[str, Any]
    task: str
    labels: tuple[str, ...]
    positive_label: str | None
    head: str
    pooling: str
    max_length: int
    truncation: str
    base_name: str
    base_digest: str
    architecture: str
    tokenizer_digest: str
    scaling: float | None
    fan_in_fan_out: bool | None
    threshold: float | None
    temperature: float | None
    seed: int
    data_name: str | None
    data_digest: str | None
    licence: str | None
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    precision: str
    kernels: str
    instruction_set: str
    threads: int
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    verbalizer: Mapping[str, Any] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    canaries: Mapping[str, Any] | None = None
    digest: str = ""
    requires: tuple[str, ...] = ()
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorEntry, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers the adapter holds, head included."""
        return sum(entry.numbers for entry in self.tensors)

    @property
    def low_rank(self) -> bool:
        """Whether the tensors are low-rank factors, in PEFT's layout."""
        return self.scaling is not None

    @property
    def answering(self) -> Task:
        """The task, with all that it takes to turn logits into answers.

        Raises:
            UsageError: its settings do not fit it.
        """
        return create(
            self.task,
            self.labels,
            positive_label=self.positive_label,
            temperature=self.temperature,
            threshold=self.threshold,
            settings=self.task_settings,
        )

    @property
    def outputs(self) -> int:
        """How many logits the head has."""
        return self.answering.outputs

    @property
    def how(self) -> Reading:
        """How texts are read."""
        return Reading.restored(self.reading)

    def as_dict(self) -> dict[str, Any]:
        """The header as it stands in the file, ready for JSON."""
        known = {name: getattr(self, name) for name in KNOWN}
        further = {name: value for name in OPTIONAL if (value := getattr(self, name))}
        requires = dict.fromkeys([*self.requires, *further])
        return {**self.extra, **known, **further, "labels": list(self.labels), "requires": list(requires)}

    def text(self, digest: str | None = None) -> str:
        """The canonical JSON, with ``digest`` in place of the digest's value where given."""
        return canonical(self.as_dict() if digest is None else {**self.as_dict(), "digest": digest})


def read_text(text: str) -> Header:
    """The header that ``text`` holds, without the manifest, which stands beside it.

    Raises:
        AdapterFormatError: it is not canonical, of a newer schema, asks for what is not known here, or fields
            are missing or wrong; all wrong fields at once.
    """
    values = parse(text, "The adapter's header")
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise AdapterFormatError(f"The adapter's header is a JSON {kind}, expected an object.")
    schema = values.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise AdapterFormatError(
            f"The adapter was written with schema version {schema}; this version of lora_clf reads up to "
            f"{SCHEMA}. Upgrade lora_clf."
        )
    if unknown := sorted(names_in(values.get("requires")) - {*KNOWN, *OPTIONAL}):
        raise AdapterFormatError(
            f"The adapter cannot be used rightly without fields that this version of lora_clf does not know: "
            f"{few(unknown)}. Upgrade lora_clf."
        )
    if wrong := problems(values):
        lines = "".join(f"\n  {problem}" for problem in wrong)
        raise AdapterFormatError(f"The adapter's header has {len(wrong)} problem(s):{lines}")
    if canonical(values) != text:
        raise AdapterFormatError(
            "The adapter's header is not canonical JSON (keys sorted, no spaces; see adapters/README.md)."
        )
    try:
        create(
            values["task"],
            values["labels"],
            positive_label=values["positive_label"],
            temperature=values["temperature"],
            threshold=values["threshold"],
            settings=values.get("task_settings"),
        )
    except UsageError as error:
        said = brief(str(error), 300)
        raise AdapterFormatError(f"The adapter's header has task_settings that do not fit: {said}") from error
    known = {name: values[name] for name in (*KNOWN, *OPTIONAL) if name in values}
    known |= {"labels": tuple(values["labels"]), "requires": tuple(values["requires"])}
    extra = {name: value for name, value in values.items() if name not in known}
    return Header(**known, extra=extra)
