"""The two sides of `speed_pool.py`: our pool, and PEFT as its documentation shows many adapters on one model.

Both are given the same folders: LoRA on every linear layer with the family head, which PEFT reads as they are. Both
take texts and give probabilities. Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_clf.adapters.adapter import Adapter
    from lora_clf.adapters.pool import AdapterPool
    from lora_clf.base.base import Base
    from lora_clf.base.view import View

LABELS = ("ham", "spam")
RANK, ALPHA = 8, 16.0
BATCH = 32


def adapter(base: Base, seed: int, pooling: str = "family", **settings: Any) -> Adapter:
    """A LoRA adapter whose factors are as large as trained ones; times do not depend on what they are."""
    import torch

    from lora_clf.adapters.adapter import Adapter, make_header
    from lora_clf.tuners import create

    settings = {"rank": RANK, "alpha": ALPHA, **settings}
    strategy = settings.pop("strategy", "lora-scratch")
    if strategy == "last-block":
        settings = {"blocks": settings["blocks"]}
    tuned = create(strategy, **settings).prepare(base.view(len(LABELS), pooling, seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in tuned.trainable().items():
            size = 0.2 if name.startswith("head.") else 0.02
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.device) * size)
    return Adapter(base, tuned, make_header(base, tuned, labels=LABELS, positive_label="spam", seed=seed))


def folders(base: Base, place: Path, count: int, ranks: Sequence[int] = (RANK,), **settings: Any) -> list[Path]:
    """``count`` saved adapters, written first where they are not there yet."""
    found = []
    for seed in range(count):
        rank = ranks[seed % len(ranks)]
        kind = "-".join(f"{key}{value}" for key, value in sorted(settings.items()))
        folder = place / f"{base.digest[:8]}-r{rank}{kind and '-'}{kind}-{seed}"
        if not folder.is_dir():
            adapter(base, seed, **{"rank": rank, "alpha": 2.0 * rank, **settings}).save(folder)
        found.append(folder)
    return found


def filled(base: Base, places: Sequence[Path], count: int, precision: str) -> AdapterPool:
    """A pool of ``count`` adapters n0, n1, ...; folders are taken again and again, each time into memory of its own."""
    from lora_clf.adapters.pool import AdapterPool

    pool = AdapterPool(base, precision=precision, verify=False)
    for number in range(count):
        pool.add(f"n{number}", places[number % len(places)])
    return pool


def one_unmerged(base: Base, folder: Path, precision: str) -> View:
    """One adapter as `load_adapter` gives it, its weights cast once where that helps, not merged."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.inference.precision import cast_frozen

    view = load_adapter(folder, base, engine="lora-scratch").tuned.view.requires_grad_(False)
    cast_frozen(view, precision)
    return view


def one_merged(base: Base, folder: Path, precision: str) -> View:
    """The same in plain weights."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.inference.precision import cast_frozen

    view = load_adapter(folder, base, engine="lora-scratch").tuned.merge().eval()
    cast_frozen(view, precision)
    return view


@dataclass
class Alone:
    """One classifier without a pool, from texts to answers, in the batches that the pool would make."""

    base: Base
    view: View
    header: Any
    precision: str
    batch_cost: int

    def __call__(self, texts: Sequence[str]) -> list[Any]:
        """One answer a text."""
        import numpy as np

        from lora_clf.adapters.prediction import answers
        from lora_clf.base.tokenizer import Tokens
        from lora_clf.inference.batches import inference_rows
        from lora_clf.inference.predict import BATCH_TOKENS, logits

        tokens = self.base.tokenizer.encode(texts, self.header.max_length)
        found = np.empty((len(texts), len(LABELS)), dtype=np.float32)
        for rows in inference_rows(tokens.lengths, BATCH_TOKENS, self.batch_cost):
            part = Tokens([tokens.ids[row] for row in rows], tokens.truncated[rows])
            found[rows] = logits(self.view, part, precision=self.precision)
        return answers(self.header, found, tokens.truncated)


class Peft:
    """PEFT: one model, adapters loaded beside each other, ``adapter_names`` for mixed batches.

    In bf16 the model and the adapters are loaded as bf16, which is faster than PEFT's default of adapters in fp32
    under autocast.
    """

    def __init__(self, base: Base, places: Sequence[Path], count: int, precision: str) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.length = base.max_length
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(base.folder), local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            str(base.folder), num_labels=len(LABELS), dtype=self.dtype, local_files_only=True
        )
        self.model: Any = PeftModel.from_pretrained(
            model, str(places[0]), adapter_name="n0", autocast_adapter_dtype=self.dtype == torch.float32
        )
        self.model.eval().to(base.device)
        for number in range(1, count):
            self.load(f"n{number}", places[number % len(places)])
        self.model.to(self.dtype)  # heads come in the type of their file

    def load(self, name: str, folder: Path, quickly: bool = True) -> None:
        """Load one adapter more; ``quickly``: without drawing weights that are replaced at once."""
        import torch

        fp32 = self.dtype == torch.float32
        self.model.load_adapter(str(folder), adapter_name=name, low_cpu_mem_usage=quickly, autocast_adapter_dtype=fp32)

    def logits(self, texts: Sequence[str], names: Sequence[str]) -> NDArray[np.float32]:
        """One adapter for each text: (B, C)."""
        import torch

        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**inputs, adapter_names=list(names)).logits
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    def __call__(self, texts: Sequence[str], names: Sequence[str]) -> list[tuple[str, float]]:
        """Label and probability of each text."""
        import torch

        shares = torch.from_numpy(self.logits(texts, names)).softmax(-1)
        top = shares.max(dim=-1)
        return [(LABELS[i], p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
