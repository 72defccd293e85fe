"""What a finished training says about itself: what went wrong, by which number, and what to try.

Pure functions of a run's record. Each finds one trouble or nothing; on a healthy run all of them are silent. Where a
loss is judged, the measure is the loss of answering every text alike (`Record.constant_loss`): what is small beside
that is not worth a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lora_clf.adapters.finding import Finding

FEW_ROWS: Final = 10  # training rows of a label, from which on it can be learned a little
SEEN: Final = 5  # validation rows of a label, from which on it is strange that it is never answered
FLAT: Final = 0.95  # of the constant loss: whoever has more has learned next to nothing
SKILL: Final = 0.1  # of a correlation (MCC, R2): below it, too
GAP: Final = 0.3  # of the constant loss, between validation and training
RISE: Final = 0.1  # of the constant loss, from the best epoch to the last, and a fifth of the best itself
SLOW: Final = 120.0  # seconds of training
PADDED: Final = 0.3  # of the computed tokens
TEXTS: Final = 16  # a step; with fewer the overhead of a step shows


@dataclass(frozen=True)
class Record:
    """What is known of a finished training.

    Attributes:
        history: an entry for each epoch: epoch, train_loss, validation (metrics).
        best_epoch: whose weights were kept.
        counts: training rows of each label; empty where rows have no label of their own.
        constant_loss: on validation, of the best answer that is the same for every text; None: not known.
        plain: whether the training loss is the task's own, so that it compares with that of validation.
        solved: whether the head was solved for, with no steps and no rate.
        rate: the peak learning rate, and the strategy's usual one.
        steps: of the optimizer.
        evened: whether labels were weighed or drawn evenly.
        seconds: of training, what is frozen included; on a CPU without those in which other programs had the cores.
        blocks: how many the base has, and how many of them run in every epoch.
        depth_flag: whether the strategy has ``--blocks``.
        batch_size: texts a step.
        padding: the share of computed tokens that are padding.
        long: the tokens of which nine of ten texts have no more.
    """

    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    counts: Mapping[str, int] = field(default_factory=dict)
    constant_loss: float | None = None
    plain: bool = True
    solved: bool = False
    rate: tuple[float, float] = (1.0, 1.0)
    steps: int = 0
    evened: bool = False
    seconds: float = 0.0
    blocks: tuple[int, int] = (0, 0)
    depth_flag: bool = False
    batch_size: int = TEXTS
    padding: float = 0.0
    long: int = 0

    @property
    def best(self) -> Mapping[str, Any]:
        """The validation metrics of the best epoch."""
        found: Mapping[str, Any] = self.history[self.best_epoch - 1]["validation"]
        return found

    def losses(self, part: str) -> list[float]:
        """The loss of each epoch: in "training", or on "validation"."""
        training = part == "training"
        return [float(entry["train_loss"] if training else entry["validation"]["loss"]) for entry in self.history]


def diagnose(record: Record) -> tuple[Finding, ...]:
    """What is wrong with a run, worst first; nothing where all is well."""
    if not record.history:
        return ()
    checks = (not_learning, one_answer, never_answered, few_examples, overfitting, slow)
    return tuple(finding for check in checks if (finding := check(record)) is not None)


def not_learning(record: Record) -> Finding | None:
    """No better than answering every text alike: nothing trains, or the rate is too low or too high."""
    constant, skill = record.constant_loss, _skill(record.best)
    training, loss = record.losses("training"), min(record.losses("validation"))
    if constant is None or loss < FLAT * constant or (skill is not None and skill >= SKILL):
        return None
    rate, usual = record.rate
    still = abs(training[-1] - training[0]) <= 0.01 * abs(training[0])
    if record.solved:
        advice = "nothing in the frozen base tells these labels apart; try --strategy lora"
    elif rate < usual / 3:
        advice = f"the rate {rate:g} is low: try --lr {usual:g}, the usual one"
    elif rate > 3 * usual or training[-1] > 1.1 * max(constant, training[0]):
        advice = f"the rate {rate:g} is too high: try --lr {min(usual, rate / 5):.2g}"
    elif record.steps < 100:
        advice = f"{record.steps} steps are few: try --epochs {_longer(record)}"
    elif still:
        advice = f"the training loss did not move: try --lr {5 * rate:.2g}"
    else:
        advice = f"try --epochs {2 * len(training)} or --lr {3 * rate:.2g}; `compare` shows what words alone can do"
    return Finding(
        "not learning",
        False,
        "validation loss against one answer for all",
        f"the validation loss is {loss:.3f}, that of one answer for every text {constant:.3f}; the training loss went "
        f"from {training[0]:.3f} to {training[-1]:.3f}",
        advice,
        {"validation_loss": loss, "constant_loss": constant, "skill": skill, "steps": record.steps},
    )


def one_answer(record: Record) -> Finding | None:
    """One label was answered for every validation text, and others were right."""
    names, matrix = _confusion(record.best)
    answered = [name for name, column in zip(names, zip(*matrix, strict=True), strict=True) if sum(column)]
    total, there = sum(map(sum, matrix)), [name for name, row in zip(names, matrix, strict=True) if sum(row)]
    if len(answered) != 1 or len(there) < 2:
        return None
    wrong = total - sum(matrix[names.index(answered[0])])
    return Finding(
        "always one label",
        False,
        "what was answered on validation",
        f"{answered[0]} was answered for all {total:,} validation texts, {wrong:,} of which have another label",
        _evening(record),
        {"label": answered[0], "texts": total, "others": wrong},
    )


def never_answered(record: Record) -> Finding | None:
    """Several labels were answered, but not all that have validation texts."""
    names, matrix = _confusion(record.best)
    answered = {name: sum(column) for name, column in zip(names, zip(*matrix, strict=True), strict=True)}
    missed = {
        name: sum(row) for name, row in zip(names, matrix, strict=True) if sum(row) >= SEEN and not answered[name]
    }
    if not missed or sum(count > 0 for count in answered.values()) < 2:
        return None
    shown = ", ".join(f"{name} ({count:,} validation texts)" for name, count in list(missed.items())[:5])
    more = f" and {len(missed) - 5} more" if len(missed) > 5 else ""
    return Finding(
        "never answered",
        False,
        "what was answered on validation",
        f"{shown}{more} was never answered" if len(missed) == 1 else f"{shown}{more} were never answered",
        _evening(record),
        {"labels": missed},
    )


def few_examples(record: Record) -> Finding | None:
    """Labels with too few training rows to be learned."""
    few = {name: count for name, count in record.counts.items() if count < FEW_ROWS}
    if not few:
        return None
    shown = ", ".join(f"{name} {count}" for name, count in sorted(few.items(), key=lambda item: item[1])[:5])
    more = f" and {len(few) - 5} more labels" if len(few) > 5 else ""
    return Finding(
        "too few examples",
        False,
        "training rows of each label",
        f"training rows: {shown}{more}; fewer than {FEW_ROWS} teach little",
        "label more of them, or join labels; `compare --curve` shows what more would bring",
        {"rows": few},
    )


def overfitting(record: Record) -> Finding | None:
    """Training texts are learned by heart: validation got worse while training got better, or is far behind it."""
    if record.constant_loss is None:
        return None
    training, validation = record.losses("training"), record.losses("validation")
    best, constant = validation.index(min(validation)), record.constant_loss
    rise, gap = validation[-1] - validation[best], validation[-1] - training[-1]
    rose = rise > max(RISE * constant, 0.2 * validation[best]) and training[-1] < training[best]
    if not rose and not (record.plain and gap > GAP * constant and training[-1] < FLAT * constant):
        return None
    numbers = {"training_loss": training[-1], "validation_loss": validation[-1], "best_epoch": record.best_epoch}
    if rose:
        found = (
            f"from epoch {best + 1} to {len(validation)} the validation loss rose from {validation[best]:.3f} to "
            f"{validation[-1]:.3f} while the training loss fell from {training[best]:.3f} to {training[-1]:.3f}; epoch "
            f"{record.best_epoch} was kept"
        )
        advice = f"try --epochs {best + 1} or --patience 1, a smaller --lr, more training rows"
    else:
        found = f"the loss is {training[-1]:.3f} in training and {validation[-1]:.3f} on validation"
        steps = "" if record.solved else ", --head-dropout 0.1, a smaller --lr, fewer --epochs"
        advice = f"try more training rows{steps}"
    return Finding("overfitting", False, "training against validation", found, advice, numbers)


def slow(record: Record) -> Finding | None:
    """Training took long, and something would make it faster."""
    if record.seconds < SLOW or record.solved:
        return None
    blocks, running = record.blocks
    epochs, kept = len(record.history), max(1, blocks // 3)
    below, advice = f"the lower {blocks - kept} of {blocks} blocks once", []
    if record.depth_flag and running > kept and epochs > 1:
        advice.append(f"--blocks {kept}, which runs {below}, not in every epoch")
    elif running == blocks > 1 and not record.depth_flag and epochs > 1:
        advice.append(f"--strategy lora --blocks {kept}, which runs {below}")
    if record.batch_size < TEXTS:
        advice.append(f"--batch-size {TEXTS} in place of {record.batch_size}")
    if record.padding > PADDED:
        share = f"{record.padding:.0%} of the computed tokens are padding"
        advice.append(f"--max-length {record.long}, into which nine of ten texts fit: {share}")
    if not advice:
        return None
    return Finding(
        "slow",
        False,
        "seconds of training",
        f"training took {record.seconds:.0f} s, {record.seconds / epochs:.0f} s an epoch",
        f"try {'; '.join(advice)}",
        {"seconds": record.seconds, "blocks": blocks, "running_blocks": running, "padding": record.padding},
    )


def _skill(metrics: Mapping[str, Any]) -> float | None:
    """A score that is 0 for one answer for all, and 1 for no error."""
    return next((float(metrics[key]) for key in ("mcc", "r2", "quadratic_kappa") if key in metrics), None)


def _confusion(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    """The labels and how often each was taken for each; nothing where rows have none or several."""
    matrix = list(metrics.get("confusion_matrix", ()))
    return list(metrics["labels"]) if matrix else [], matrix


def _evening(record: Record) -> str:
    if record.evened:
        return "try more --epochs, another --lr, more rows of the others"
    return "try --class-weight balanced or --sampling balanced, more rows of the others"


def _longer(record: Record) -> int:
    """Epochs that make about two hundred steps."""
    return max(len(record.history) + 1, round(200 * len(record.history) / max(1, record.steps)))
