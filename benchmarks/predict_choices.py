"""What the defaults of prediction come from: seconds by precision, weights, kernel, tokens a batch and padded widths.

*beside* is the adapter's own view, with its factors beside the weights; *merged* a copy with them in the weights;
*one* runs the last block for the pooled token alone; *fused* computes each block as one node (`encoder_block`).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from paired import interleave, provenance, short, timed

from lora_clf.inference import predict
from lora_clf.inference.attention import FUSED, REFERENCE, set_attention
from lora_clf.inference.encoder_block import fuse_blocks
from lora_clf.inference.one_position import pool_last_block
from lora_clf.inference.precision import cast_frozen, resolve_precision
from lora_clf.inference.products import quicken
from lora_clf.tuners.base import Tuned

if TYPE_CHECKING:
    from predict_sides import Bench

    from lora_clf.base.tokenizer import Tokens

USUAL = 1024  # tokens a batch
BATCH_TOKENS = (512, 1024, 2048, 4096)
WIDTHS = (1, 4, 8)


def choices(bench: Bench, messages: int, blocks: int, seed: int) -> dict[str, Any]:
    """The median over blocks of each combination, for the first ``messages``."""
    adapter = bench.adapter
    tokens = adapter.encode(bench.texts[:messages])
    sides: dict[str, Callable[[], float]] = {}
    for precision in dict.fromkeys(resolve_precision(name, adapter.base.device) for name in ("fp32", "auto")):
        ways = {weights: _made(adapter.tuned, weights, precision) for weights in
                ("beside", "merged", "merged+one", "merged+fused", "merged+fused+one")}  # fmt: skip
        for weights, made in ways.items():
            sides[f"{precision} {weights} {FUSED} {USUAL} 1"] = _side(made, tokens, precision, FUSED, USUAL, 1)
        sides[f"{precision} merged {REFERENCE} {USUAL} 1"] = _side(
            ways["merged"], tokens, precision, REFERENCE, USUAL, 1
        )
        for weights in ("merged+one", "merged+fused+one"):
            for batch in BATCH_TOKENS:
                for widths in WIDTHS:
                    name = f"{precision} {weights} {FUSED} {batch} {widths}"
                    sides[name] = _side(ways[weights], tokens, precision, FUSED, batch, widths)
    for side in sides.values():
        side()
    found = interleave(sides, blocks, seed)
    return {
        "messages": len(tokens),
        "seconds": {name: short(median(block[name] for block in found)) for name in sides},
        "blocks": blocks,
        "provenance": provenance(adapter.base.device),
    }


def _made(tuned: Tuned, weights: str, precision: str) -> predict.Answering:
    """What answers, by its name."""
    if weights == "beside":
        return predict.Answering(tuned.view)
    copy = tuned.merge()
    if "fused" in weights:
        fuse_blocks(Tuned(tuned.tuner, copy), precision)
    quicken(copy.blocks)
    cast_frozen(copy.requires_grad_(False), precision)
    return predict.Answering(copy.eval(), pool_last_block(copy) if "one" in weights else None)


def _side(
    made: predict.Answering, tokens: Tokens, precision: str, kernel: str, batch: int, widths: int
) -> Callable[[], float]:
    """One combination as a side of `interleave`."""

    def chosen(view: Any, tokens: int, *, training: bool) -> None:
        set_attention(view, kernel)

    def work() -> None:
        with patch.object(predict, "choose_attention", chosen):
            predict.logits(made.view, tokens, precision=precision, last=made.last, batch_tokens=batch, widths=widths)

    return timed(work)
