"""How long a comparison will take: from a few timed steps, corrected by every cell that ends."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_clf.comparison.contender import Contender
from lora_clf.comparison.plan import Curve, Plan, price_of
from lora_clf.experiment.tuning import INNER_FOLDS, trial_price

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

FORKED = 0.5  # seconds of a run beyond loading base and data and what `run` below counts
STARTED = 4.0  # the same where each run imports torch and transformers
SLOW = 1.0  # seconds of timing after which one more run would tell little
VERY_SLOW = 15.0  # seconds after which a run is not repeated, not even the first


def estimate(
    plan: Plan, base: Base, datasets: Mapping[tuple[int, int | None], Dataset], start_up: float
) -> dict[str, float]:
    """Seconds of a cell of each contender, by its price: of the whole training part, of k a class, of a trial.

    A step of each strategy and a pass without gradients are timed on a batch of texts of average length. What is
    frozen below the trained part costs one pass over all texts, whatever the number of epochs. Nothing trains and
    nothing of the base changes.

    Args:
        plan: what is to be done.
        base: the loaded base.
        datasets: the plan's data.
        start_up: seconds that loading the base and all data sets took here; where runs are forked, without imports.
    """
    from lora_clf.base.reading import Reading, read
    from lora_clf.experiment.worker import forks
    from lora_clf.inference.precision import resolve_precision
    from lora_clf.training.settings import TrainSettings

    settings = TrainSettings(**plan.training)
    precision = resolve_precision(settings.precision, base.device)
    data = next(iter(datasets.values()))
    reading = Reading.restored(plan.reading)
    tokens = read(base.tokenizer, data.train.texts, base.check_length(settings.max_length), reading=reading).ids
    batch = _typical([len(ids) for ids in tokens], settings.batch_size)
    pieces = len(tokens) / max(1, len(data.train))  # of a text, where long ones are read in chunks
    train, validation, test = (pieces * len(part) for part in data.parts.values())
    found = {}
    for contender in plan.contenders:
        step, once, frozen = _timed(contender, base, [tokens[place] for place in batch], data.task.outputs, precision)
        # With the whole backbone frozen a step is the head alone; the difference of two clocks would be noise.
        rest = max(0.0, step - once * frozen) if frozen < 1 else 0.0

        def run(
            train: float,
            validation: float,
            test: float,
            epochs: int = settings.epochs,
            costs: tuple[float, float, float] = (rest, once, frozen),
        ) -> float:
            rest, once, frozen = costs
            steps = math.ceil(train / settings.batch_size)
            evaluations = (epochs * validation + test) / settings.batch_size
            texts = (train + validation + test) / settings.batch_size
            return epochs * steps * rest + texts * once * frozen + evaluations * once * (1 - frozen)

        found[price_of(contender.label)] = (FORKED if forks() else STARTED) + start_up + run(train, validation, test)
        for k in plan.curve.sizes if plan.curve else ():
            rows = pieces * k * len(data.labels)
            epochs = Curve.epochs(math.ceil(0.75 * rows), plan.training)
            found[price_of(contender.label, k)] = run(0.75 * rows, 0.25 * rows, test, epochs)
        if plan.tune:
            held = train / INNER_FOLDS
            found[trial_price(contender.label)] = INNER_FOLDS * run(0.9 * (train - held), 0.1 * (train - held), held)
    return found


def _typical(lengths: Sequence[int], size: int) -> list[int]:
    """Positions of ``size`` texts whose lengths lie around the mean, as in batches grouped by length."""
    order = np.argsort(lengths, kind="stable")
    middle = int(np.searchsorted(np.asarray(lengths)[order], np.mean(lengths)))
    start = max(0, min(middle - size // 2, len(order) - size))
    return [int(place) for place in order[start : start + size]]


def _timed(
    contender: Contender, base: Base, ids: Sequence[Any], classes: int, precision: str
) -> tuple[float, float, float]:
    """Seconds of a step and of a pass without gradients, and the share of the blocks that is computed only once."""
    import torch

    from lora_clf.errors import LoraClfError
    from lora_clf.inference.attention import choose_attention
    from lora_clf.inference.precision import autocast, cast_frozen
    from lora_clf.inference.prefix import find_cut

    tuner = contender.tuner()
    if tuner.extra_tokens:  # some of the base's positions are not for the text
        ids = [row[: base.check_length(None, tuner.extra_tokens)] for row in ids]
    longest = max(len(row) for row in ids)
    input_ids = torch.zeros((len(ids), longest), dtype=torch.int64)  # (B, T)
    mask = torch.zeros_like(input_ids)
    for place, row in enumerate(ids):
        input_ids[place, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.int64))
        mask[place, : len(row)] = 1
    input_ids, mask = input_ids.to(base.device), mask.to(base.device)
    targets = torch.arange(len(ids), device=base.device) % classes
    try:
        view = tuner.prepare(base.view(classes)).view
    except LoraClfError:
        return 0.0, 0.0, 0.0  # its cells will say what is wrong
    cut = find_cut(view, changes_inputs=tuner.changes_inputs)
    frozen = 1.0 if cut.pooled else cut.blocks / len(view.blocks)
    # As the training loop does it: half the time is in these.
    cast_frozen(view, precision)
    choose_attention(view, longest, training=True)

    def passed(learning: bool) -> None:
        with torch.set_grad_enabled(learning), autocast(precision, base.device):
            logits = view.classify(input_ids, mask)  # (B, C)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        if learning:
            loss.backward()
        loss.item()

    try:
        return _fastest(lambda: passed(True)), _fastest(lambda: passed(False)), frozen
    except Exception:  # memory that is too small, or a library's own: as above
        return 0.0, 0.0, 0.0


def _fastest(work: Callable[[], None]) -> float:
    """Seconds of the run that nothing disturbed, of up to three after one that warms up."""
    taken: list[float] = []
    while len(taken) < 4 and sum(taken[1:]) < SLOW and sum(taken) < VERY_SLOW:
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    # The first run builds kernels and may take many times as long as the others.
    return min(taken[1:] or taken)


class Clock:
    """The time that is left, from the estimate and from what finished runs really took.

    Args:
        seconds: what a run takes, by its price.
        prices: of each run that is to be done.
        jobs: how many are at work at a time.
    """

    def __init__(self, seconds: Mapping[str, float], prices: Sequence[str], jobs: int = 1) -> None:
        self._estimate = dict(seconds)
        self._waiting = Counter(prices)
        self._jobs = jobs
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._begun: dict[str, tuple[str, float, float]] = {}  # by name: price, when, share done

    def start(self, name: str, price: str) -> None:
        """The run ``name`` begins now."""
        self._begun[name] = price, time.perf_counter(), 0.0
        self._waiting[price] -= 1

    def step(self, name: str, share: float) -> None:
        """``share`` of the steps of a run are done."""
        price, begin, _ = self._begun[name]
        self._begun[name] = price, begin, share

    def stop(self, name: str) -> None:
        """The run ``name`` has ended now."""
        price, begin, _ = self._begun.pop(name)
        self._taken[price].append(time.perf_counter() - begin)

    def drop(self, price: str) -> None:
        """A run of that price need not be done after all."""
        self._waiting[price] -= 1

    def left(self) -> float:
        """Seconds to the end of the plan."""
        expected = sum(count * self._expected(price) for price, count in self._waiting.items() if count > 0)
        expected += sum(self._expected(price) * (1 - share) for price, _, share in self._begun.values())
        count = self._waiting.total() + len(self._begun)
        return expected / max(1, min(self._jobs, count))

    def _expected(self, price: str) -> float:
        if self._taken[price]:
            return float(np.mean(self._taken[price]))
        ratios = [
            float(np.mean(taken)) / self._estimate[name]
            for name, taken in self._taken.items()
            if taken and self._estimate.get(name)
        ]
        return self._estimate.get(price, 0.0) * float(np.mean(ratios) if ratios else 1.0)

    def sentence(self) -> str:
        """What is ahead, for people: ``15 runs, about 12 min``."""
        count = self._waiting.total()
        if not count:
            return "Nothing is left to do: every run is there already."
        return f"{count} run{'s' if count > 1 else ''}, {duration(self.left())}"


def duration(seconds: float) -> str:
    """``about 40 s``, ``about 12 min``, ``about 3.5 h``."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
