"""Tune one pretrained base into your text classifier, every way there is, and keep the result small.

::

    from lora_clf import LoRA, load_adapter, load_base, load_data, train

    base = load_base("minilm")
    data = load_data("sms-spam")
    result = train(base, data, LoRA(rank=8))
    result.save("spam")

    spam = load_adapter("spam", base)
    spam.predict(["You won a prize! Call 09098790123 now"])

Shapes, in every docstring and comment: B batch, T tokens, D width, C classes, r rank, N adapters.

Nothing is imported until it is asked for: a name is looked up in the room it comes from on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_clf.adapters.adapter import Adapter, Prediction, load_adapter
    from lora_clf.adapters.pool import AdapterPool
    from lora_clf.base.base import Base, load_base
    from lora_clf.base.reading import Reading
    from lora_clf.base.verbalizer import Verbalizer
    from lora_clf.data.dataset import Dataset, load_data
    from lora_clf.errors import (
        AdapterError,
        AdapterExistsError,
        AdapterFormatError,
        AdapterNotFoundError,
        BaseError,
        BaseNotFoundError,
        CheckpointError,
        DataError,
        DownloadError,
        LoraClfError,
        NotMergeableError,
        StateError,
        TargetError,
        TrainingError,
        TunerError,
        UnsupportedBaseError,
        UsageError,
        WrongBaseError,
    )
    from lora_clf.experiment.run import compare
    from lora_clf.training.checkpoints import Checkpoints
    from lora_clf.training.decision import Decision
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import strategies
    from lora_clf.tuners.base import Tuner
    from lora_clf.tuners.full import Full
    from lora_clf.tuners.head_only import HeadOnly
    from lora_clf.tuners.last_block import LastBlock
    from lora_clf.tuners.lora import LoRA
    from lora_clf.tuners.lora_scratch import LoRAScratch

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AdapterError",
    "AdapterExistsError",
    "AdapterFormatError",
    "AdapterNotFoundError",
    "AdapterPool",
    "Base",
    "BaseError",
    "BaseNotFoundError",
    "CheckpointError",
    "Checkpoints",
    "DataError",
    "Dataset",
    "Decision",
    "DownloadError",
    "Full",
    "HeadOnly",
    "LastBlock",
    "LoRA",
    "LoRAScratch",
    "LoraClfError",
    "NotMergeableError",
    "Prediction",
    "Reading",
    "StateError",
    "TargetError",
    "TrainSettings",
    "TrainingError",
    "Tuner",
    "TunerError",
    "UnsupportedBaseError",
    "UsageError",
    "Verbalizer",
    "WrongBaseError",
    "__version__",
    "compare",
    "load_adapter",
    "load_base",
    "load_data",
    "strategies",
    "train",
]

_HOME = {
    "Adapter": "lora_clf.adapters.adapter",
    "AdapterPool": "lora_clf.adapters.pool",
    "Base": "lora_clf.base.base",
    "Checkpoints": "lora_clf.training.checkpoints",
    "Dataset": "lora_clf.data.dataset",
    "Decision": "lora_clf.training.decision",
    "Full": "lora_clf.tuners.full",
    "HeadOnly": "lora_clf.tuners.head_only",
    "LastBlock": "lora_clf.tuners.last_block",
    "LoRA": "lora_clf.tuners.lora",
    "LoRAScratch": "lora_clf.tuners.lora_scratch",
    "Prediction": "lora_clf.adapters.adapter",
    "Reading": "lora_clf.base.reading",
    "TrainSettings": "lora_clf.training.settings",
    "Tuner": "lora_clf.tuners.base",
    "Verbalizer": "lora_clf.base.verbalizer",
    "compare": "lora_clf.experiment.run",
    "load_adapter": "lora_clf.adapters.adapter",
    "load_base": "lora_clf.base.base",
    "load_data": "lora_clf.data.dataset",
    "strategies": "lora_clf.tuners",
    "train": "lora_clf.training.loop",
    **{name: "lora_clf.errors" for name in __all__ if name.endswith("Error")},
}


def __getattr__(name: str) -> object:
    """Import a public name from its room on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    """The public names, those not imported yet too."""
    return sorted(__all__)
