"""The header of an adapter that was just trained: what it is, and what it came from."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from lora_clf.adapters.canonical import plain
from lora_clf.adapters.classifier import fan_in_fan_out, scaling_of
from lora_clf.adapters.header import Header
from lora_clf.errors import UsageError
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import Classification

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.base.verbalizer import Prompt
    from lora_clf.tuners.base import Tuned

MANY = 200  # labels; of more than so many a header keeps no scores one by one


def make_header(
    base: Base,
    tuned: Tuned,
    *,
    labels: Sequence[str],
    positive_label: str | None = None,
    task: Task | None = None,
    reading: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    truncation: str = "right",
    seed: int = 0,
    precision: str = "fp32",
    kernels: str = "auto",
    data_name: str | None = None,
    data_digest: str | None = None,
    licence: str | None = None,
    threshold: float | None = None,
    temperature: float | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
) -> Header:
    """The header of an adapter that was just trained; canaries, manifest and digest follow when it is saved.

    Args:
        base: what it was trained on.
        tuned: the trained handle.
        labels: in the order of the logits.
        positive_label: the label that is looked for, where there are two.
        task: what was learned; by default one of ``labels``. Its settings go into the header, its labels, temperature
            and threshold are those that are given here.
        reading: the settings of how texts are read; None: what is too long is cut off.
        max_length: tokens a text; default: the base's.
        truncation: the side that is cut away.
        seed: the seed of the run.
        precision: what it was trained in: "fp32" or "bf16".
        kernels: the attention kernel where one was forced, else "auto".
        data_name: of the data; of a path only the last part is kept.
        data_digest: of texts, labels and split.
        licence: of the data.
        threshold: the probability from which on the positive label is predicted.
        temperature: what the logits are divided by before the softmax.
        training: the settings of the loop, ready for JSON.
        metrics: {"validation": {...}, "test": {...}}; numbers that are not finite become null.
    """
    view = tuned.view
    task = task or Classification(tuple(labels), positive_label)
    if task.outputs != view.classes:
        raise UsageError(f"{len(labels)} labels ({', '.join(labels)}) for a head of {view.classes} outputs.")
    settings = tuned.tuner.settings()
    floats = {name for name, default in tuned.tuner.flags().items() if isinstance(default, float)}
    return Header(
        strategy=tuned.tuner.name,
        # An alpha of 16 and one of 16.0 are the same setting, so they have the same bytes.
        settings=plain({n: float(v) if n in floats else v for n, v in settings.items()}),
        task=task.name,
        task_settings=plain(task.settings()),
        reading=plain(reading or {}),
        labels=tuple(labels),
        positive_label=positive_label,
        head=_head(base, view.pooling),
        verbalizer=None if base.prompt is None else _verbalizer(base.prompt),
        pooling=view.pooling,
        max_length=base.check_length(max_length),
        truncation=truncation,
        base_name=base.name,
        base_digest=base.digest,
        architecture=base.architecture.model_type,
        tokenizer_digest=base.tokenizer_digest,
        scaling=scaling_of(tuned),
        fan_in_fan_out=fan_in_fan_out(base, tuned),
        threshold=threshold,
        temperature=temperature,
        seed=seed,
        data_name=_portable(data_name),
        data_digest=data_digest,
        licence=licence,
        training=plain(training or {}),
        metrics=recorded(metrics or {}),
        versions=dict(_versions()),
        precision=precision,
        kernels=f"{base.device.type}/{kernels}",
        instruction_set=_instruction_set(base),
        threads=_threads(),
    )


def _head(base: Base, pooling: str) -> str:
    if base.prompt is not None:
        return "verbalizer"
    return str(base.architecture.family) if pooling == "family" else "free"


def _verbalizer(prompt: Prompt) -> dict[str, Any]:
    return {"template": prompt.template, "words": list(prompt.words), "rows": prompt.digest}


def recorded(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a header keeps of the scores of each part: single numbers, and of each label up to `MANY` labels.

    A confusion matrix grows with the square of their number, and a header has to stay small.
    """
    kept: dict[str, Any] = plain(
        {
            part: {name: value for name, value in scores.items() if not (_each(value) and len(value) > MANY)}
            for part, scores in metrics.items()
        }
    )
    return kept


def _each(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _portable(name: str | None) -> str | None:
    """The name without the folders of a path."""
    if name is None or not (name[:1] in "/\\~." or name[1:2] == ":"):
        return name or None
    return re.split(r"[/\\]", name)[-1].lstrip("~.") or None


@cache
def _versions() -> Mapping[str, str]:
    """Of this process, which looks for them once: each is a search through the environment's folders."""
    from importlib.metadata import PackageNotFoundError, version

    from lora_clf import __version__

    found = {"lora_clf": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "peft"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _instruction_set(base: Base) -> str:
    import torch

    if base.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(base.device)
        return f"CUDA {major}.{minor}"
    return str(torch.backends.cpu.get_cpu_capability())


def _threads() -> int:
    import torch

    return torch.get_num_threads()
