"""Our side of the speed benchmarks: `lora_clf.train` as anybody calls it, timed from outside.

The clock runs from the call to the end of the last epoch's evaluation, as the progress callback reports it, so it holds
everything that training pays for: preparing the strategy, the frozen prefix, the steps, the evaluations. What comes
after (scoring the test part in fp32, the record) no peer does. Where a peer does not evaluate, our validation part is
a few rows. Tokenising is done before, for every side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paired import Timing, synchronise

from lora_clf.base.text import Side as TextSide
from lora_clf.base.tokenizer import Tokenizer, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset
    from lora_clf.training.result import Progress, Result
    from lora_clf.tuners.base import Tuner


class TokenisedOnce(Tokenizer):
    """A base's tokenizer that remembers what it was asked: the second time costs nothing."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner
        self._known: dict[tuple[tuple[str, ...], int, str], Tokens] = {}
        self.pad_id, self.empty_id = inner.pad_id, inner.empty_id

    def __getattr__(self, name: str) -> Any:
        """Whatever else a tokenizer has."""
        return getattr(self._inner, name)

    @property
    def digest(self) -> str:
        """That of the tokenizer."""
        return self._inner.digest

    def encode(self, texts: Sequence[str], max_length: int, side: TextSide = "right") -> Tokens:
        """The same ids as the tokenizer's."""
        key = (tuple(texts), max_length, side)
        if key not in self._known:
            self._known[key] = self._inner.encode(texts, max_length, side)
        return self._known[key]


class OurTraining:
    """One of our strategies on a base.

    Args:
        base: the base; each instance should get one whose tokenizer is a `TokenisedOnce`.
        data: the split.
        tuner: the strategy.
        precision: "auto", "fp32" or "bf16".
        epochs: of the job.
        evaluated: whether the whole validation part is scored after every epoch, as where the peer evaluates.
        warm: start from the frozen prefix that an earlier run left; otherwise every run pays for it anew.
        timed_epochs: how many epochs really run, where the rest is extrapolated; None runs all.
        settings: further fields of `TrainSettings`.
    """

    def __init__(
        self,
        base: Base,
        data: Dataset,
        tuner: Tuner,
        *,
        precision: str,
        epochs: int,
        evaluated: bool = False,
        warm: bool = False,
        timed_epochs: int | None = None,
        **settings: Any,
    ) -> None:
        few = few_of_each(data)
        self.base, self.tuner, self.precision = base, tuner, precision
        self.data = replace(data, validation=data.validation if evaluated else few, test=few)
        self.epochs, self.timed_epochs, self.warm = epochs, timed_epochs or epochs, warm
        self.settings = settings
        self.timing: Timing | None = None
        self.result: Result | None = None
        self._remembered = False
        self._calls = 0

    def shorten(self) -> None:
        """Run one epoch from now on: it has every batch that there is; a warm run starts from what it finds then."""
        self.epochs = self.timed_epochs = 1
        if self.warm:
            self._train_once()

    def start_at(self, seed: int) -> None:
        """Let the next call run with ``seed``."""
        self._calls = seed

    def __call__(self) -> float:
        """Seconds of the job, with another seed at every call."""
        from lora_clf.training.loop import train
        from lora_clf.training.settings import TrainSettings

        if not self.warm:
            forget(self.base)
        elif not self._remembered:  # of all texts: another side may have left those of some
            self._train_once()
        settings = TrainSettings(epochs=self.timed_epochs, seed=self._calls, precision=self.precision, **self.settings)
        self._calls += 1
        for part in self.data.parts.values():
            self.base.encode(part.texts, settings.max_length)
        ended: list[tuple[float, int]] = []

        def note(progress: Progress) -> None:
            if progress.validation is not None:
                synchronise(self.base.device)
                ended.append((time.perf_counter(), progress.step))

        synchronise(self.base.device)
        started = time.perf_counter()
        self.result = train(self.base, self.data, self.tuner, settings, progress=note)
        measured, steps = ended[-1][0] - started, ended[-1][1]
        times = self.epochs / self.timed_epochs
        self.timing = Timing(measured * times, measured, steps, round(steps * times))
        return self.timing.seconds

    def _train_once(self) -> None:
        from lora_clf.training.loop import train
        from lora_clf.training.settings import TrainSettings

        train(self.base, self.data, self.tuner, TrainSettings(epochs=1, precision=self.precision, **self.settings))
        self._remembered = True

    def predict(self, texts: Sequence[str]) -> NDArray[Any]:
        """The classes of ``texts`` by the last trained adapter, as `predict` of the command line gives them: (N,)."""
        import numpy as np

        assert self.result is not None
        labels = {label: number for number, label in enumerate(self.data.labels)}
        return np.array([labels[found.label] for found in self.result.adapter.predict(texts)])


class ForwardPass:
    """One pass of the frozen base over the training texts, sorted by length, in our fastest way."""

    def __init__(self, base: Base, data: Dataset, *, precision: str) -> None:
        self.base, self.precision = base, precision
        self.tokens = base.encode(data.train.texts)
        self.timing: Timing | None = None

    def __call__(self) -> float:
        """Seconds of the pass itself, with everything around it made before."""
        from lora_clf.inference.precision import cast_frozen, resolve_precision
        from lora_clf.inference.predict import logits

        precision = resolve_precision(self.precision, self.base.device)
        view = self.base.view(2)
        cast_frozen(view, precision)
        synchronise(self.base.device)
        started = time.perf_counter()
        logits(view, self.tokens, precision=precision)
        synchronise(self.base.device)
        seconds = time.perf_counter() - started
        self.timing = Timing(seconds, seconds, 1, 1)
        return seconds


def tokenised_once(base: Base) -> Base:
    """The same base with a tokenizer that remembers; it has a cache of prefix states of its own."""
    return replace(base, tokenizer=TokenisedOnce(base.tokenizer))


def few_of_each(data: Dataset) -> Any:
    """The first validation row of every label."""
    labels = data.validation.labels
    return data.validation.take([labels.index(label) for label in data.labels if label in labels])


def forget(base: Base) -> None:
    """Empty the memory of prefix states; nothing is kept on disk while LORA_CLF_CACHE_SIZE is 0."""
    from lora_clf.inference.cache import prefix_cache

    prefix_cache(base).clear()
