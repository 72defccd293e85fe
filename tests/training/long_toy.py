"""Documents whose class shows far behind the first window, made of toy texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lora_clf.data.dataset import Dataset, Part
from tests.training.test_loop import toy

LENGTH = 40  # bytes a window


def long_toy(rows: int = 48) -> Dataset:
    """Each text of `toy` in the middle of sentences that say nothing; the first window holds none of it."""
    random = np.random.default_rng(1)

    def sentence() -> str:
        return "".join(random.choice(list("ijklmnopqr"), 12)) + ". "

    def longer(part: Part) -> Part:
        texts = []
        for text in part.texts:
            before, behind = 4 + int(random.integers(3)), int(random.integers(4))
            texts.append("".join(sentence() for _ in range(before)) + text * 2 + ". "
                         + "".join(sentence() for _ in range(behind)))  # fmt: skip
        return replace(part, texts=tuple(texts))

    data = toy(rows)
    return replace(data, train=longer(data.train), validation=longer(data.validation), test=longer(data.test))
