"""What the defaults of prediction come from: seconds by precision, weights, kernel and tokens a batch.

*merged* is the private copy that `view_for` makes for many texts, *beside* the adapter's own view, with its factors
beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from paired import interleave, provenance, timed

from lora_clf.inference import predict
from lora_clf.inference.attention import FUSED, REFERENCE, set_attention
from lora_clf.inference.precision import resolve_precision

if TYPE_CHECKING:
    from predict_sides import Bench

    from lora_clf.base.tokenizer import Tokens
    from lora_clf.base.view import View

BATCH_TOKENS = (512, 1024, 2048, 4096, 8192)


def choices(bench: Bench, messages: int, blocks: int, seed: int) -> dict[str, Any]:
    """The median over blocks of each combination, for the first ``messages``."""
    adapter = bench.adapter
    tokens = adapter.encode(bench.texts[:messages])
    sides: dict[str, Callable[[], float]] = {}
    for asked in ("fp32", "auto"):
        precision = resolve_precision(asked, adapter.base.device)
        views = {"merged": predict.view_for(adapter.tuned, precision, predict.MANY), "beside": adapter.tuned.view}
        for how, view in views.items():
            for kernel in (REFERENCE, FUSED):
                for batch in BATCH_TOKENS:
                    sides[f"{precision} {how} {kernel} {batch}"] = _side(view, tokens, precision, kernel, batch)
    for side in sides.values():
        side()
    found = interleave(sides, blocks, seed)
    return {
        "messages": len(tokens),
        "seconds": {name: float(f"{median(block[name] for block in found):.4g}") for name in sides},
        "blocks": blocks,
        "provenance": provenance(adapter.base.device),
    }


def _side(view: View, tokens: Tokens, precision: str, kernel: str, batch: int) -> Callable[[], float]:
    """One combination as a side of `interleave`."""

    def chosen(view: View, tokens: int, *, training: bool) -> None:
        set_attention(view, kernel)

    def work() -> None:
        with patch.object(predict, "choose_attention", chosen):
            predict.logits(view, tokens, precision=precision, batch_tokens=batch)

    return timed(work)
