"""What a model card says that depends on the task: what is answered, which scores, and how without lora_clf."""

from __future__ import annotations

from lora_clf.adapters.header import Header
from lora_clf.tasks import kind_of
from lora_clf.tasks.base import Measure
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression


def measures(header: Header) -> list[Measure]:
    """The scores that a card shows."""
    return [each for each in kind_of(header.task).shown if each.card]


def hub_metrics(header: Header) -> list[str]:
    """The metrics of the card's metadata."""
    found = [each.metric for each in measures(header) if each.metric and not each.positive]
    return list(dict.fromkeys(found))


def gives(header: Header, labels: str) -> str:
    """What the adapter gives each text."""
    task = header.answering
    if isinstance(task, Regression):
        return f"It gives each text a number, {labels}"
    if isinstance(task, Ordinal):
        return f"It gives each text one of the labels {labels}, from the lowest to the highest"
    if isinstance(task, Multilabel):
        return f"It gives each text any number of the labels {labels}"
    return f"It gives each text one of the labels {labels}"


def remarks(header: Header) -> list[str]:
    """What an answer means, where that is not the label of the largest logit."""
    task = header.answering
    if isinstance(task, Regression):
        return [f"The number is logit x {task.std:.6g} + {task.mean:.6g}, deviation and mean of the training part."]
    if isinstance(task, Multilabel):
        cuts = ", ".join(f"{label} {cut:.4g}" for label, cut in zip(task.labels, task.cuts, strict=True))
        return [f"A label is given from this probability on (0.5 where validation had no say): {cuts}."]
    if isinstance(task, Ordinal):
        cut = ", ".join(f"{edge:g}" for edge in task.edges)
        lines = [
            "Output k is the log-odds of going beyond class k once it is reached (continuation ratio); the answer is "
            "the median class."
        ]
        return [*lines, *([f"The classes are a number cut at {cut}, each end in the lower class."] if cut else [])]
    return []


def last_lines(header: Header) -> str:
    """Python that prints the answer that ``logits`` (C,) mean, LABELS being there."""
    task = header.answering
    if isinstance(task, Regression):
        return f"print(logits[0].item() * {task.std!r} + {task.mean!r})"
    if isinstance(task, Multilabel):
        cuts = [float(cut) for cut in task.cuts]
        return f"CUTS = {cuts}\nprint([label for label, p, cut in zip(LABELS, logits.sigmoid(), CUTS) if p >= cut])"
    if isinstance(task, Ordinal):
        return "print(LABELS[int((logits.sigmoid().cumprod(0) > 0.5).sum())])"
    return "print(LABELS[logits.argmax()])"
