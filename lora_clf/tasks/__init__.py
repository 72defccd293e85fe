"""What is learned: how labels become targets, what a row's loss is, how logits become answers, how those are scored.

One file a task; "binary" and "multiclass" share one. Whatever holds for every task is asked of the `Task`; only what is
about one kind asks which kind it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_clf.errors import unknown
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import Classification
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression

KINDS: tuple[type[Task], ...] = (Classification, Multilabel, Regression, Ordinal)
NAMES: tuple[str, ...] = tuple(name for kind in KINDS for name in kind.names)
"""Every task by the name that an adapter's header and ``--task`` have for it."""


def kind_of(name: str) -> type[Task]:
    """The class of the task called ``name``.

    Raises:
        UsageError: there is none.
    """
    for kind in KINDS:
        if name in kind.names:
            return kind
    raise unknown("task", name, NAMES)


def create(
    name: str,
    labels: Sequence[str],
    *,
    positive_label: str | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Task:
    """The task that an adapter's header describes.

    Raises:
        UsageError: there is none called ``name``, or the settings do not fit it.
    """
    return kind_of(name).restored(
        tuple(labels),
        positive_label=positive_label,
        temperature=temperature,
        threshold=threshold,
        settings=settings or {},
    )
